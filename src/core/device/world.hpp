// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// What every kernel is told about its group, and the word in which it reports a failed wait.
// Plain data with one layout on the host and on all targets; includes nothing but <stdint.h>.
#pragma once
#include <stdint.h>

namespace mori {

/// What a kernel was waiting for when its deadline passed. The host turns the number into words
/// (core/runtime/error_word.cpp); products add their own values there and here.
enum class Wait : uint64_t {
  none = 0,
  barrier = 1,            ///< shmem: every rank enters the barrier
  signal = 2,             ///< shmem: a signal named by the caller
  grid = 3,               ///< the other blocks of this launch
  value = 4,              ///< shmem: a variable named by the caller
  team = 5,               ///< shmem: every member of a team enters a step of a collective
  collective = 6,         ///< ccl: every member enters a step of a collective
  packet = 7,             ///< ccl: a word of a member's message
  copies = 8,             ///< ccl: a member's copies, with no kernel
  dispatch_counts = 16,   ///< ep: a peer announces how many rows it will send
  dispatch_rows = 17,     ///< ep: a peer has written its rows
  combine_credit = 18,    ///< ep: a peer's combine buffer is free
  combine_rows = 19,      ///< ep: a peer has returned its rows
  ibgda_room = 32,        ///< ibgda: room for an entry in the send ring
  ibgda_turn = 33,        ///< ibgda: entries before this one are published and rung
  ibgda_completion = 34,  ///< ibgda: the NIC says that entries are done
  ibgda_result = 35,      ///< ibgda: a free word for a value that is fetched
  ibgda_error = 36,       ///< ibgda, no wait: a queue failed: expected = Family, seen = Queue::error
};

/// What a kernel found wrong before it wrote anything (not a wait).
enum class Refusal : uint64_t {
  none = 0,
  capacity = 1,  ///< ep: more rows than the receive buffer of `peer` holds: expected = capacity, seen = rows
  mismatch = 2,  ///< ep: `peer` calls with another row size: expected = mine, seen = its
  expert_id =
      3,  ///< ep: a top-k id is out of range: peer = this rank, expected = number of experts, seen = id
  expert_capacity =
      5,  ///< ep: more rows for an expert of `peer` than it has slots: expected = slots, seen = rows
  unreachable = 6,   ///< shmem: no way leads to `peer`, or there is no such PE: expected = number of PEs
  workspace = 7,     ///< shmem: a team's memory for reductions: expected = bytes needed, seen = bytes
  unregistered = 8,  ///< shmem: memory that the NIC may not touch: peer = this rank, expected = bytes, seen =
                     ///< address
  stale =
      4,  ///< ep: a routing handle whose rows were overwritten: expected = its epoch, seen = the present one
};

/// The first failure of a context. Lives in host memory that the device can reach, so that the host
/// reads it without asking the device. Once `wait` or `abort` is not 0 every wait of the context leaves.
struct ErrorWord {
  uint64_t state;     ///< 0 clean, 1 being written, 2 complete
  uint64_t wait;      ///< Wait
  uint64_t refusal;   ///< Refusal; exactly one of the two is not 0
  uint64_t peer;      ///< rank that was waited for, or whose limit was met
  uint64_t expected;  ///< value that would have ended the wait
  uint64_t seen;      ///< value found instead
  uint64_t abort;     ///< written by the host: 1 + rank of a lost peer; every wait leaves
  uint64_t reserved;
};
static_assert(sizeof(ErrorWord) == 64, "one cache line");

/// One rank's view of its group. Passed by value in every argument block.
struct World {
  uint64_t bases;  ///< uint64_t[world_size] in device memory: start of each rank's heap, as mapped here; 0:
                   ///< not by load and store
  uint64_t error;  ///< ErrorWord*, as the device sees it
  uint64_t timeout_ticks;  ///< of the target's clock(); 0 = wait for ever
  uint32_t rank;
  uint32_t world_size;
  uint64_t fabric;  ///< ibgda::Fabric in device memory; 0: no queues, every rank is in `bases`
};
static_assert(sizeof(World) == 40, "layout");

}  // namespace mori
