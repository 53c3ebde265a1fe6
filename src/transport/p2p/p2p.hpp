// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Load/store access to a peer's heap: xGMI, NVLink or shared memory. A peer's copy of a symmetric
// object is at the same offset of its heap, whose start this rank has in World::bases.
//
//   peer_pointer<T>(world, peer, offset)      where the object of `peer` is, as mapped here
//   peer_pointer(world, peer, mine)           the same for my own copy's address instead of an offset
//   raise_signal(world, peer, offset, value)  release: publishes this lane's earlier writes to the peer
#pragma once
#include "src/core/device/prelude.hpp"

namespace mori {
inline namespace MORI_TARGET_NAMESPACE {

/// Callers: any lane. `offset` is in bytes from the start of the heap.
template <class T>
MORI_DEVICE T* peer_pointer(const World& world, uint32_t peer, uint64_t offset) {
  return global<T>(global<const uint64_t>(world.bases)[peer] + offset);
}

/// Callers: any lane. `mine` lies in this rank's own heap.
template <class T>
MORI_DEVICE T* peer_pointer(const World& world, uint32_t peer, T* mine) {
  const uint64_t* bases = global<const uint64_t>(world.bases);
  return global<T>(reinterpret_cast<uint64_t>(mine) - bases[world.rank] + bases[peer]);
}

/// Raises the peer's signal at `offset` to `value`. One writer per signal; values only grow.
/// Callers: one lane; sync_block() or an acq_rel counter first if other lanes wrote the payload.
/// Orders: all earlier writes of this lane, and of lanes it synchronised with, before the signal,
/// system-wide.
MORI_DEVICE void raise_signal(const World& world, uint32_t peer, uint64_t offset, uint64_t value) {
  store_release<Scope::system>(peer_pointer<uint64_t>(world, peer, offset), value);
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori
