// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Teams: who is in one, and how its members meet. `sync` and all collectives are made of steps: each member
// raises its entry of every member's signals, then waits for all entries of its own. One hop, and every wait
// knows for whom (docs/shmem.md, "Teams").
#pragma once
#include "src/shmem/shmem_order.hpp"
#include "src/shmem/shmem_signal.hpp"

namespace mori::shmem {
inline namespace MORI_TARGET_NAMESPACE {

MORI_DEVICE uint32_t team_my_pe(const Team& team) { return team.index; }
MORI_DEVICE uint32_t team_n_pes(const Team& team) { return team.size; }
/// The PE of member `index`, which is below team_n_pes(team).
MORI_DEVICE uint32_t team_pe(const Team& team, uint32_t index) { return team.start + index * team.stride; }
/// The number in `to` of member `index` of `from`; -1 if it is not in `to`, or there is no such member.
MORI_DEVICE int team_translate_pe(const Team& from, uint32_t index, const Team& to) {
  if (index >= from.size) return -1;
  const uint32_t pe = team_pe(from, index);
  const uint32_t stride = to.stride == 0 ? 1 : to.stride;  // 0: a team of one
  if (pe < to.start || (pe - to.start) % stride != 0) return -1;
  const uint32_t there = (pe - to.start) / stride;
  return there < to.size ? int(there) : -1;
}

/// An object of my heap at an offset.
template <class T>
MORI_DEVICE T* symmetric(const Ctx& ctx, uint64_t offset) {
  return peer_pointer<T>(ctx.world, ctx.world.rank, offset);
}

/// Every member is here. Callers: the group; one group of each member.
/// Orders:  the groups' earlier writes before all members' later accesses, system-wide.
/// Fails:   false on the deadline: `what`, a PE that has not come, its step expected and seen.
template <Order O = Order::release, class Group>
[[nodiscard]] MORI_DEVICE bool step(const Group& group, const Ctx& ctx, const Team& team, Wait what) {
  uint64_t* entries = symmetric<uint64_t>(ctx, team.signals);
  // My own entry is the epoch: only this member writes it, and graphs replay because it is memory.
  const uint64_t epoch = load_relaxed<Scope::system>(entries + team.index) + 1;
  group.sync();  // all lanes have read it, and their writes come before the signals
  for (uint32_t i = group.lane(); i < team.size; i += group.lanes()) {
    const uint32_t member = (team.index + 1 + i) % team.size;  // not everybody at member 0 first
    signal_op<O>(ctx, entries + team.index, epoch, SignalOp::set, team_pe(team, member));
  }
  bool came = true;
  for (uint32_t i = group.lane(); i < team.size && came; i += group.lanes())
    came = mori::wait_until(ctx.world, entries + i, epoch, what, team_pe(team, i));
  return group.all(came);
}

/// Returns when every member has called. Callers: the group. Orders, fails: as step(), Wait::barrier.
template <class Group>
[[nodiscard]] MORI_DEVICE bool sync(const Group& group, const Ctx& ctx, const Team& team) {
  return step(group, ctx, team, Wait::barrier);
}
/// quiet_all(), then sync(): what the members have done is complete everywhere.
template <class Group>
[[nodiscard]] MORI_DEVICE bool barrier(const Group& group, const Ctx& ctx, const Team& team) {
  quiet_all(group, ctx);
  return step<Order::relaxed>(group, ctx, team, Wait::barrier);  // every lane has fenced
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori::shmem
