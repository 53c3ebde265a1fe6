// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// One collective (python/mori/ccl): what to do, and its operands. The same bytes on the host and on every
// target; docs/ccl.md says how it is done.
#pragma once
#include <stdint.h>

#include "src/core/device/world.hpp"

namespace mori {

enum class CclOp : uint32_t {
  // kernel ccl_move
  barrier = 0,
  all_gather,
  all_to_all,
  broadcast,
  scatter,
  gather,
  // kernels ccl_reduce_*
  all_reduce,
  reduce_scatter,
  reduce,
};
enum class CclReduction : uint32_t { sum = 0, avg, min, max, prod };
enum class CclAlgorithm : uint32_t { one_shot = 0, two_shot, ll };

enum class CclCodes : uint32_t { none = 0, per_row, per_block };  // e4m3fn with fp32 scales

inline constexpr uint32_t kCclMembers = 64;

/// Offsets are of the symmetric heap.
struct CclArgs {
  World world;
  uint64_t signals;      ///< uint64_t[blocks][members], zero when made: meetings that member has entered
  uint64_t told;         ///< uint64_t[blocks][2][3][members], by the parity of the meeting: of its call the
                         ///< digest, source_home, dest_home
  uint64_t counters;     ///< uint64_t[blocks][2], zero when made, mine alone: steps, packet tags
  uint64_t staging;      ///< [blocks][3][chunk_bytes]: in, in, out
  uint64_t packets;      ///< uint64_t[blocks][2][members][packet_words], zero when made
  uint64_t chunk_bytes;  ///< multiple of 16 * members
  uint64_t packet_words;
  uint64_t source, dest;            ///< any memory of the device
  uint64_t source_home, dest_home;  ///< 1 + offset in the heap, where peers may read them in place; 0: not
  uint64_t count;                   ///< elements of one part; bytes in ccl_move
  uint64_t splits;  ///< all_to_all: uint64_t[4][members]: offsets and bytes of what I send, then of what I
                    ///< get; 0: parts of `count`
  uint64_t digest;  ///< of what all members must call alike
  CclOp op;
  CclReduction reduction;
  CclAlgorithm algorithm;
  uint32_t root;               ///< as a member
  uint32_t index;              ///< which member I am
  uint32_t members;            ///< 1..kCclMembers
  uint8_t ranks[kCclMembers];  ///< of the members
};
static_assert(sizeof(CclArgs) == 40 + 14 * 8 + 6 * 4 + 64, "layout");

/// all_reduce + residual + RMSNorm (docs/ccl_fused.md).
/// `count` of `ccl` is rows; `source` and `dest` are [rows][hidden], dest of elements or of codes.
struct CclNormArgs {
  CclArgs ccl;
  uint64_t residual;      ///< [rows][hidden]; 0: none
  uint64_t residual_out;  ///< [rows][hidden]; may be `residual`
  uint64_t weight;        ///< [hidden]
  uint64_t scales;        ///< float[rows][1 or ceil(hidden / 128)], with codes
  uint64_t hidden;        ///< multiple of 8
  float eps;
  uint32_t codes;  ///< CclCodes
};
static_assert(sizeof(CclNormArgs) == sizeof(CclArgs) + 5 * 8 + 8, "layout");

}  // namespace mori
