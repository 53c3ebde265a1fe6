// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// SHMEM inside kernels: symmetric memory, put, signal, wait, barrier. docs/shmem.md shows how to use it.
//
//   my_pe  n_pes                                              who I am among how many
//   ptr(world, mine, pe)                                      `pe`'s copy of a symmetric object
//   put(group, world, to, from, bytes, pe)                    orders nothing
//   put_signal(group, world, to, from, bytes, signal, value, pe)   payload, then the signal (release)
//   signal_wait_until(group, world, signal, value, from_pe)   bounded; the payload is visible (acquire)
//   barrier(group, world, state)                              all ranks; everything before, before everything
//   after
//
// `group` says which lanes make the call together: Thread{}, Warp{} or Block{flag}
// (core/device/collective.hpp). All of them call, with the same arguments. A symmetric address is one in my
// own heap. `pe` is a rank, below n_pes(world), and may be my own. A wait that fails returns false in every
// lane of the group, and the error word holds what was waited for; leave the kernel then.
#pragma once
#include "src/shmem/barrier_args.hpp"
#include "src/shmem/signals.hpp"

namespace mori::shmem {
inline namespace MORI_TARGET_NAMESPACE {

using mori::Block;
using mori::Thread;
using mori::Warp;

MORI_DEVICE uint32_t my_pe(const World& world) { return world.rank; }
MORI_DEVICE uint32_t n_pes(const World& world) { return world.world_size; }

/// Where `pe`'s copy of a symmetric object is, for plain loads and stores. Callers: any lane.
template <class T>
MORI_DEVICE T* ptr(const World& world, T* mine, uint32_t pe) {
  return peer_pointer(world, pe, mine);
}

/// Writes `bytes` from `from` (any memory of this device) to `pe`'s copy of `to`. Any size and alignment, 0
/// included, with pointers then unused; an aligned word of 4 or 8 bytes arrives whole.
/// Callers: the group; sync() before if other lanes wrote `from`, and before `from` is written again.
/// Orders:  nothing. A later put_signal() of the same group to the same pe publishes it.
template <class Group>
MORI_DEVICE void put(const Group& group, const World& world, void* to, const void* from, size_t bytes,
                     uint32_t pe) {
  copy(group, ptr(world, static_cast<char*>(to), pe), from, bytes);
}

/// put(), and then sets `pe`'s copy of `signal` to `value`; with 0 bytes only that. A signal has one writer
/// and only grows.
/// Callers: the group. `from` may be written again when the call returns.
/// Orders:  this payload, and all earlier puts of the group to `pe`, before the signal, system-wide.
template <class Group>
MORI_DEVICE void put_signal(const Group& group, const World& world, void* to, const void* from, size_t bytes,
                            uint64_t* signal, uint64_t value, uint32_t pe) {
  put(group, world, to, from, bytes, pe);
  group.sync();
  if (group.lane() == 0) store_release<Scope::system>(ptr(world, signal, pe), value);
}

/// Waits until my own copy of `signal` is at least `value`. `from_pe` is the rank that sets it: the error
/// names it.
/// Callers: the group.
/// Orders:  acquire, for all lanes: what the setter's group wrote before the signal is visible to them.
/// Fails:   false on the deadline: Wait::signal, from_pe, value, the value seen; false at once in a context
/// that has failed.
template <class Group>
[[nodiscard]] MORI_DEVICE bool signal_wait_until(const Group& group, const World& world,
                                                 const uint64_t* signal, uint64_t value, uint32_t from_pe) {
  bool came = true;
  if (group.lane() == 0) came = wait_until(world, signal, value, Wait::signal, from_pe);
  return group.broadcast(came);
}

/// Returns when every rank has called. One group of each rank at a time may use a state; blocks of the same
/// launch meet by other means.
/// Callers: the group.
/// Orders:  all earlier writes of all ranks' groups before all later accesses, system-wide.
/// Fails:   false on the deadline: Wait::barrier, a rank that has not come, its epoch expected and seen.
template <class Group>
[[nodiscard]] MORI_DEVICE bool barrier(const Group& group, const World& world, const BarrierState& state) {
  // My own entry is the epoch: only this rank writes it, and graphs replay safely because it is memory.
  const uint64_t* mine = peer_pointer<const uint64_t>(world, world.rank, state.signals);
  const uint64_t epoch = load_relaxed<Scope::system>(mine + world.rank) + 1;
  group.sync();  // all lanes have read the epoch, and their writes come before the signals
  signal_all(group, world, state.signals, epoch);
  return wait_all(group, world, state.signals, epoch, Wait::barrier);
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori::shmem
