// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Which way leads to a PE. Every SHMEM operation goes through reach(): by load and store where the PE's heap
// is mapped here, by a queue to its NIC where one was made, else refused.
//
//   Ctx                                  a context; made of a World where none is asked for
//   ptr(ctx, mine, pe)                   `pe`'s copy of a symmetric object for loads and stores, or null
//   reach(ctx, mine, pe, direct, queued) direct(that copy), or queued(), or the error word says that there is
//   no
//                                        way
#pragma once
#include "src/core/device/collective.hpp"
#include "src/shmem/team.hpp"
#include "src/transport/ibgda/types.hpp"
#include "src/transport/p2p/p2p.hpp"

namespace mori::shmem {
inline namespace MORI_TARGET_NAMESPACE {

using mori::Block;
using mori::Thread;
using mori::Warp;

/// A context: its operations are ordered and completed apart from those of others. Passed by value or
/// reference; a World is its default context.
struct Ctx {
  World world;
  uint32_t queue;

  MORI_DEVICE Ctx(const World& of, uint32_t queue_index = 0) : world(of), queue(queue_index) {}
};

MORI_DEVICE uint32_t my_pe(const Ctx& ctx) { return ctx.world.rank; }
MORI_DEVICE uint32_t n_pes(const Ctx& ctx) { return ctx.world.world_size; }

/// Where `pe`'s copy of a symmetric object is, for plain loads and stores; null where there is no direct path
/// or no such PE. `mine`: in my heap. Callers: any lane.
template <class T>
[[nodiscard]] MORI_DEVICE T* ptr(const Ctx& ctx, T* mine, uint32_t pe) {
  if (pe >= ctx.world.world_size) return nullptr;
  const uint64_t* bases = global<const uint64_t>(ctx.world.bases);
  const uint64_t theirs = load_constant(bases + pe), ours = load_constant(bases + ctx.world.rank);
  return theirs == 0 ? nullptr : global<T>(reinterpret_cast<uint64_t>(mine) - ours + theirs);
}

/// Refuses an operation. Callers: any lane; the first one's word stays.
MORI_DEVICE_NOINLINE void refuse_unreachable(const World& world, uint32_t pe) {
  fail(world, Wait::none, Refusal::unreachable, pe, world.world_size, 0);
}

/// Whether some PEs are reached by queues. Callers: any lane.
MORI_DEVICE bool has_queues(const World& world) { return kHasQueues && world.fabric != 0; }

/// Whether what is for `pe` is posted to a queue. Callers: any lane.
MORI_DEVICE bool has_queue(const World& world, uint32_t pe) {
  if (!has_queues(world) || pe >= world.world_size) return false;
  const ibgda::Fabric* fabric = global<const ibgda::Fabric>(world.fabric);
  return ibgda::Path(global<const ibgda::RemoteHeap>(fabric->heaps)[pe].path) == ibgda::Path::queue;
}

/// Without queues (World::fabric is 0) the second branch is a call away from the operation's code.
template <class T, class Direct, class Queued>
MORI_DEVICE void reach(const Ctx& ctx, T* mine, uint32_t pe, const Direct& direct, const Queued& queued) {
  if (T* theirs = ptr(ctx, mine, pe)) return direct(theirs);
  if constexpr (kHasQueues) {
    if (has_queue(ctx.world, pe)) return queued();
  }
  refuse_unreachable(ctx.world, pe);
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori::shmem
