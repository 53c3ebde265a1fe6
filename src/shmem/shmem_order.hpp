// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Fence and quiet: the order and the completion of what a group has done (docs/shmem.md, "Order").
#pragma once
#include "src/shmem/queue_rma.hpp"
#include "src/shmem/transport.hpp"

namespace mori::shmem {
inline namespace MORI_TARGET_NAMESPACE {

/// Callers: the group.
/// Orders:  the group's earlier puts, atomics, signals and stores to each PE before its later ones there.
template <class Group>
MORI_DEVICE void fence(const Group& group, const Ctx&) {
  group.sync();  // first: each lane's fence is then behind what all lanes did
  fence_acq_rel<Scope::system>();
}
template <class Group>
MORI_DEVICE void fence(const Group& group, const Ctx& ctx, uint32_t) {
  fence(group, ctx);
}

/// Returns when the group's earlier operations are complete: visible at their targets to everybody.
/// Callers: the group.
/// Orders:  them before everything the group does afterwards, loads included (sequentially consistent).
template <class Group>
MORI_DEVICE void quiet(const Group& group, const Ctx& ctx) {
  group.sync();
  fence_seq_cst<Scope::system>();
  if (has_queues(ctx.world)) {
    queue_quiet(ctx, group.lane(), group.lanes(), false);
    group.sync();
  }
}
/// quiet() of all blocks and contexts of this PE, as far as they have asked for something already.
template <class Group>
MORI_DEVICE void quiet_all(const Group& group, const Ctx& ctx) {
  group.sync();
  if (has_queues(ctx.world)) {
    queue_quiet(ctx, group.lane(), group.lanes(), true);
    group.sync();
  }
  fence_seq_cst<Scope::system>();  // last: signals of a barrier rest on it
}
template <class Group>
MORI_DEVICE void quiet(const Group& group, const Ctx& ctx, uint32_t) {
  quiet(group, ctx);
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori::shmem
