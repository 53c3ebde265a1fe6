// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// What the dispatch and combine kernels share: a token's destinations, the launch's meeting points,
// signals to and from every rank.
#pragma once
#include "src/ops/ep/ep_args.hpp"
#include "src/transport/p2p/p2p.hpp"

namespace mori {
inline namespace MORI_TARGET_NAMESPACE {

/// Bitwise or over the warp. Callers: the warp.
MORI_DEVICE uint64_t warp_or(uint64_t value) {
  for (uint32_t step = kWarpSize / 2; step != 0; step /= 2) value |= shuffle(value, lane_id() ^ step);
  return value;
}
/// Sum over the warp. Callers: the warp.
MORI_DEVICE uint64_t warp_sum(uint64_t value) {
  for (uint32_t step = kWarpSize / 2; step != 0; step /= 2) value += shuffle(value, lane_id() ^ step);
  return value;
}

MORI_DEVICE int64_t load_id(uint64_t ids, uint32_t id_bytes, uint64_t index) {
  return id_bytes == 4 ? int64_t(global<const int32_t>(ids)[index]) : global<const int64_t>(ids)[index];
}

/// Number of set bits of `mask` below bit `rank`.
MORI_DEVICE uint32_t bits_below(uint64_t mask, uint32_t rank) {
  return count_bits(mask & ((uint64_t(1) << rank) - 1));
}

/// True in every lane of the block that arrives last of the grid. The counter is 0 again afterwards,
/// so the next launch may have another shape.
/// Callers: the block. Orders: all blocks' earlier writes before the last block's later ones, at scope S.
template <Scope S>
MORI_DEVICE bool last_block(uint32_t* arrivals, uint32_t* block_flag) {
  sync_block();
  if (block_lane() == 0) {
    const bool last = fetch_add_acq_rel<S>(arrivals, 1u) + 1 == grid_blocks();
    if (last) store_relaxed<S>(arrivals, 0u);
    *block_flag = last;
  }
  sync_block();
  const bool last = *block_flag != 0;
  sync_block();  // the flag may be written again
  return last;
}

/// Raises my entry of a signal array at every rank. Callers: the block, after last_block().
MORI_DEVICE void signal_all(const World& world, uint64_t signal_offset, uint64_t value) {
  for (uint32_t i = block_lane(); i < world.world_size; i += block_lanes()) {
    const uint32_t peer = (world.rank + 1 + i) % world.world_size;  // rotate: not everybody at rank 0 first
    raise_signal(world, peer, signal_offset + 8ull * world.rank, value);
  }
}

/// Waits until every rank has raised its entry of my signal array. False: the error word is set.
/// Callers: the block. Orders: acquire, for all lanes of the block.
MORI_DEVICE bool wait_all(const World& world, uint64_t signal_offset, uint64_t value, Wait what,
                          uint32_t* block_flag) {
  const uint64_t* mine = peer_pointer<const uint64_t>(world, world.rank, signal_offset);
  if (block_lane() == 0) *block_flag = 1;
  sync_block();
  for (uint32_t peer = block_lane(); peer < world.world_size; peer += block_lanes()) {
    if (!wait_until(world, mine + peer, value, what, peer)) store_relaxed<Scope::block>(block_flag, 0u);
  }
  sync_block();
  const bool came = load_relaxed<Scope::block>(block_flag) != 0;
  sync_block();
  return came;
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori
