// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Posting to a queue pair and waiting for it: the algorithm once, for all families and targets. docs/ibgda.md
// says why each step holds.
//
//   post(world, queue, request)             a lane's entry, told to the NIC; the position to wait for, or 0
//   wait_completed(world, queue, position)  everything before the position is done
//   quiet(world, queue)                     everything that is published by now is done
//
// Any number of lanes may call, diverged or not. Lanes of one wave may run in lockstep, so no lane leaves its
// loop holding something that another lane of the wave needs: each turn is taken, used and given back inside
// one pass of the loop.
#pragma once
#include "src/transport/ibgda/providers/table.hpp"

namespace mori::ibgda {
inline namespace MORI_TARGET_NAMESPACE {

MORI_DEVICE bool try_lock(uint64_t* lock) {
  uint64_t free = 0;
  return load_relaxed<Scope::device>(lock) == 0 &&
         atomic_compare_exchange<Scope::system>(lock, free, uint64_t(1));
}
MORI_DEVICE void unlock(uint64_t* lock) { store_release<Scope::system>(lock, uint64_t(0)); }

/// Takes what completions there are, if nobody else does at the moment. Callers: one lane.
MORI_DEVICE_NOINLINE void poll(const World& world, Queue& q) {
  if (!try_lock(&q.poll_lock)) return;
  with_family(q.family, [&](auto family) {
    // at most a ring at once: others may want the turn to look for themselves
    for (uint32_t i = 0; i < q.cq_depth; ++i) {
      const Completion completion = family.take(q);
      if (!completion.valid) break;
      if (completion.failed) {
        const uint64_t error = kQueueFailed | uint64_t(completion.vendor) << 8 | completion.status;
        store_release<Scope::system>(&q.error, error);
        fail(world, Wait::queue_failed, Refusal::none, q.peer, uint64_t(q.family) << 32 | q.qpn, error);
        break;
      }
      store_release<Scope::system>(&q.completed, completion.completed);
    }
  });
  unlock(&q.poll_lock);
}

/// Writes the request's entry into the queue and tells the NIC. Callers: one lane; any number at once.
/// Orders:  what this lane, and lanes it synchronised with, have written before the NIC's reading of the
/// entry
///          and of its payload.
/// Fails:   0 on the deadline (Wait::queue_place) or when the queue has failed; the error word is set.
/// Nothing
///          of this request is executed then, or all of it.
[[nodiscard]] MORI_DEVICE_NOINLINE uint64_t post(const World& world, Queue& q, const Request& request) {
  enum class Stage { room, turn, doorbell } stage = Stage::room;
  uint64_t end = 0, seen = 0;
  bool dead = false;
  with_family(q.family, [&](auto family) {
    const uint32_t units = family.units(request);
    const uint64_t begin = fetch_add_relaxed<Scope::device>(&q.reserved, uint64_t(units));
    const auto step = [&] {
      if (load_relaxed<Scope::system>(&q.error) != 0) return dead = true;
      if (stage == Stage::room) {
        seen = load_acquire<Scope::system>(&q.completed);
        if (begin + units > seen + q.depth) {
          poll(world, q);
          return false;
        }
        family.encode(q, begin, request);
        stage = Stage::turn;
      }
      if (stage == Stage::turn) {
        seen = load_acquire<Scope::system>(&q.published);
        if (seen != begin) return false;
        family.publish(q, begin, request);
        store_release<Scope::system>(&q.published, begin + units);
        stage = Stage::doorbell;
      }
      seen = load_acquire<Scope::system>(&q.rung);
      if (seen >= begin + units) return true;
      if (!try_lock(&q.ring_lock)) return false;
      // Read behind the lock: whoever published before the last holder's reading was rung by it.
      const uint64_t whole = load_acquire<Scope::system>(&q.published);
      if (whole > load_relaxed<Scope::system>(&q.rung)) {
        family.ring(q, whole);
        store_release<Scope::system>(&q.rung, whole);
      }
      unlock(&q.ring_lock);
      return true;
    };
    if (poll_until(world, step, begin, Wait::queue_place, q.peer, seen) && !dead) end = begin + units;
  });
  return end;
}

/// Callers: any lane. Orders: what the NIC did for entries before `position`, before this lane's later
/// accesses. Fails: false on the deadline (Wait::queue_completion) or when the queue has failed.
[[nodiscard]] MORI_DEVICE bool wait_completed(const World& world, Queue& q, uint64_t position) {
  uint64_t seen = 0;
  bool dead = false;
  const auto step = [&] {
    seen = load_acquire<Scope::system>(&q.completed);
    if (seen >= position) return true;
    if (load_relaxed<Scope::system>(&q.error) != 0) return dead = true;
    poll(world, q);
    return false;
  };
  return poll_until(world, step, position, Wait::queue_completion, q.peer, seen) && !dead;
}

/// The same for all entries that anybody has published by now.
[[nodiscard]] MORI_DEVICE bool quiet(const World& world, Queue& q) {
  return wait_completed(world, q, load_acquire<Scope::system>(&q.published));
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori::ibgda
