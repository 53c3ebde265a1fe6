// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// What the dispatch and combine kernels share: a token's experts, one row's way, times of phases.
#pragma once
#include "src/core/device/blocks_flags.hpp"
#include "src/ops/ep/ep_args.hpp"
#include "src/shmem/signals.hpp"

namespace mori {
inline namespace MORI_TARGET_NAMESPACE {

MORI_DEVICE int64_t load_id(uint64_t ids, uint32_t id_bytes, uint64_t index) {
  return id_bytes == 4 ? int64_t(global<const int32_t>(ids)[index]) : global<const int64_t>(ids)[index];
}

/// Number of set bits of `mask` below bit `rank`.
MORI_DEVICE uint32_t bits_below(uint64_t mask, uint32_t rank) {
  return count_bits(mask & ((uint64_t(1) << rank) - 1));
}

/// The tag of tagged words of an epoch: never 0, so that memory nobody wrote says nothing.
MORI_DEVICE uint32_t tag_of(uint64_t epoch) { return uint32_t(epoch % kEpTags) + 1; }

/// One row to its final place. Callers: the warp; finish_large_copies() follows the last one.
MORI_DEVICE void copy_row(bool large, void* to, const void* from, uint64_t bytes) {
  if (large) return warp_copy_large(to, from, bytes);
  warp_copy(to, from, bytes);
}

/// Notes when this block came to a phase, if anybody wants to know. Callers: the block, behind a barrier
/// where all its lanes are meant.
MORI_DEVICE void note_time(uint64_t trace, EpTrace phase) {
  if (trace != 0 && block_lane() == 0) {
    global<uint64_t>(trace)[uint64_t(block_id()) * kEpTraceWords + phase] = clock_ticks();
  }
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori
