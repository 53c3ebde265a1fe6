// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Arrays of signals between all ranks: uint64_t[world_size] at the same heap offset everywhere, entry s of
// each array written by rank s alone. What barriers, dispatch and combine agree with.
#pragma once
#include "src/core/device/collective.hpp"
#include "src/transport/p2p/p2p.hpp"

namespace mori {
inline namespace MORI_TARGET_NAMESPACE {

/// Raises my entry of the signal array at every rank, my own included.
/// Callers: the group; sync() first if other lanes wrote what the signal publishes.
template <class Group>
MORI_DEVICE void signal_all(const Group& group, const World& world, uint64_t signal_offset, uint64_t value) {
  for (uint32_t i = group.lane(); i < world.world_size; i += group.lanes()) {
    const uint32_t peer = (world.rank + 1 + i) % world.world_size;  // rotate: not everybody at rank 0 first
    raise_signal(world, peer, signal_offset + 8ull * world.rank, value);
  }
}

/// Waits until every rank has raised its entry of my signal array. False in all lanes: the error word is set.
/// Callers: the group. Orders: acquire, for all lanes of the group.
template <class Group>
[[nodiscard]] MORI_DEVICE bool wait_all(const Group& group, const World& world, uint64_t signal_offset,
                                        uint64_t value, Wait what) {
  const uint64_t* mine = peer_pointer<const uint64_t>(world, world.rank, signal_offset);
  bool came = true;
  for (uint32_t peer = group.lane(); peer < world.world_size && came; peer += group.lanes()) {
    came = wait_until(world, mine + peer, value, what, peer);
  }
  return group.all(came);
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori
