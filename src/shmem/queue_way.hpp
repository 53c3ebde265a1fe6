// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The way to a PE through its NIC: which queue, where the PE's copy of an object is, which key my own memory
// has. docs/ibgda.md, "SHMEM over queues".
#pragma once
#include "src/shmem/transport.hpp"
#include "src/transport/ibgda/queue.hpp"

namespace mori::shmem {
inline namespace MORI_TARGET_NAMESPACE {

MORI_DEVICE const ibgda::Fabric& fabric_of(const Ctx& ctx) {
  return *global<const ibgda::Fabric>(ctx.world.fabric);
}

/// What one operation needs to know of a PE that has_queue().
struct QueueWay {
  ibgda::Queue* queue;
  uint64_t remote;  ///< `pe`'s copy of the object, in that PE's address space
  uint32_t rkey;
};

/// The queue of this block and context to `pe`: all that they ask of `pe` goes through it, in order.
MORI_DEVICE ibgda::Queue* queue_to(const Ctx& ctx, uint32_t pe) {
  const ibgda::Fabric& fabric = fabric_of(ctx);
  const uint32_t mine = (block_id() + ctx.queue) % fabric.queues_per_peer;
  return global<ibgda::Queue>(fabric.queues) + uint64_t(pe) * fabric.queues_per_peer + mine;
}
MORI_DEVICE QueueWay way_to(const Ctx& ctx, uint64_t mine, uint32_t pe) {
  const ibgda::RemoteHeap& heap = global<const ibgda::RemoteHeap>(fabric_of(ctx).heaps)[pe];
  const uint64_t ours = global<const uint64_t>(ctx.world.bases)[ctx.world.rank];
  return {queue_to(ctx, pe), mine - ours + heap.address, heap.rkey};
}

/// The key of [address, address + bytes); false where that is in no region.
MORI_DEVICE bool find_key(const ibgda::Fabric& fabric, uint64_t address, uint64_t bytes, uint32_t& lkey) {
  const ibgda::LocalRegion* regions = global<const ibgda::LocalRegion>(fabric.regions);
  for (uint32_t i = 0; i < fabric.num_regions; ++i) {
    const uint64_t end = load_acquire<Scope::system>(&regions[i].end);
    if (address < regions[i].begin || address >= end || bytes > end - address) continue;
    lkey = regions[i].lkey;
    return true;
  }
  return false;
}

/// Callers: one lane. Nothing has been sent.
MORI_DEVICE void refuse_unregistered(const Ctx& ctx, uint64_t address, uint64_t bytes) {
  fail(ctx.world, Wait::none, Refusal::unregistered, ctx.world.rank, bytes, address);
}

/// Calls use(word, lkey) with a registered word that nobody else has meanwhile: use() posts, waits, takes
/// what has come and returns true, or false after a failure, when the NIC may still write there and the word
/// stays taken. It runs inside the search, so that a lane with a word never waits for one without. Callers:
/// any lane. Fails: false, Wait::ibgda_result where no word is free.
template <class Use>
MORI_DEVICE bool with_result(const Ctx& ctx, const Use& use) {
  const ibgda::Fabric& fabric = fabric_of(ctx);
  uint64_t* owners = global<uint64_t>(fabric.result_owners);
  uint64_t at = fetch_add_relaxed<Scope::device>(global<uint64_t>(fabric.result_cursor), uint64_t(1));
  bool done = false;
  const bool had = poll_until(
      ctx.world,
      [&] {
        at = at % (fabric.num_results - 1) + 1;  // word 0 is for what nobody asks for
        if (compare_swap_relaxed<Scope::system>(owners + at, uint64_t(0), uint64_t(1)) != 0) return false;
        static_cast<void>(load_acquire<Scope::system>(owners + at));  // behind what the last owner did
        done = use(fabric.results + at * sizeof(ibgda::Result), fabric.result_lkey);
        if (done) store_release<Scope::system>(owners + at, uint64_t(0));
        return true;
      },
      1, Wait::ibgda_result, ctx.world.rank, at);
  return had && done;
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori::shmem
