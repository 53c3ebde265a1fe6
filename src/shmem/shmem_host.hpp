// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// One SHMEM operation that the host starts (python/mori/shmem): what to do, and its operands. The same bytes
// on the host and on every target; shmem_host.kernel.cpp carries it out.
#pragma once
#include <stdint.h>

#include "src/core/device/world.hpp"
#include "src/shmem/team.hpp"

namespace mori {

enum class ShmemHostOp : uint32_t {
  // kernel shmem_host_move
  put = 0,
  get,
  put_signal,
  // a kernel of its name each
  broadcast,
  fcollect,
  alltoall,
  // kernel shmem_host_word
  signal_op,
  signal_fetch,
  signal_wait_until,
  wait_until,
  test,
  fence,
  quiet,
  sync,
  barrier,
  atomic_fetch,
  atomic_set,
  atomic_swap,
  atomic_compare_swap,
  atomic_fetch_add,
  atomic_fetch_and,
  atomic_fetch_or,
  atomic_fetch_xor,
  // kernels shmem_host_reduce_*
  reduce_min,
  reduce_max,
  reduce_sum,
  reduce_prod,
  reduce_and,
  reduce_or,
  reduce_xor,
};

enum class ShmemType : uint32_t { u8 = 0, i8, i16, i32, i64, u16, u32, u64, fp16, bf16, fp32, fp64 };

/// Fields that an operation has no use for are 0. Addresses: `dest` and `signal` as mapped on this rank.
struct ShmemHostArgs {
  World world;
  shmem::Team team;  ///< of collectives, sync and barrier
  uint64_t dest;     ///< also the word that is read, awaited or changed
  uint64_t source;   ///< any memory of the device
  uint64_t count;    ///< bytes; elements of a reduction. Collectives: of one member's part
  uint64_t signal;   ///< of put_signal
  uint64_t out;    ///< where the fetched value goes (`type`), or the outcome of a test (uint8_t); 0: nowhere
  uint64_t value;  ///< operand, in the low bytes
  uint64_t condition;  ///< of atomic_compare_swap
  ShmemHostOp op;
  ShmemType type;
  uint32_t pe;  ///< target; who sets what is awaited, or kAnyPe; root of a broadcast, as member of the team
  uint32_t option;  ///< Cmp or SignalOp
};
static_assert(sizeof(ShmemHostArgs) == 152, "layout");

}  // namespace mori
