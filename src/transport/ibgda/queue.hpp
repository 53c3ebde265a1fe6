// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The queue algorithm: posting to a queue from any number of lanes at once, and waiting for what was posted.
// docs/ibgda.md says why each step holds.
//
//   post(world, queue, request)               position behind the entry, or 0 after a failure   any lane
//   post_lanes(world, queue, request, wants)  the same for all lanes of a warp together         the warp
//   wait_completed(world, queue, position)    until everything before it is done                any lane
//   quiet(world, queue)                       until everything published so far is done         any lane
//
// No lane waits inside a lock or a turn: what is done in one is done inside the waiting loop, so that lanes
// of a wave that run in lockstep never hold what another one of them waits for. Every wait is bounded; after
// a failure the error word says what was waited for.
#pragma once
#include "src/transport/ibgda/providers/table.hpp"

namespace mori::ibgda {
inline namespace MORI_TARGET_NAMESPACE {

/// What the algorithm holds to. Tests break one rule at a time, by a struct that hides it.
struct Rules {
  static constexpr bool kWaitsForRoom = true;           ///< no entry is written before its units are free
  static constexpr uint32_t kRoomSlack = 0;             ///< units that the wait for room counts too many
  static constexpr bool kJoins = true;                  ///< a group's stores come before its publish
  static constexpr bool kPublishesInOrder = true;       ///< positions become published one after another
  static constexpr bool kRingsUnderLock = true;         ///< one lane at a time rings
  static constexpr bool kReadsPublishedLocked = true;   ///< what to ring for is read under the lock
  static constexpr bool kGroupsByQueue = true;          ///< by queue, not by peer
  static constexpr bool kQuietReadsPublished = true;    ///< not what was rung or completed
  static constexpr bool kBoundsCompletions = true;      ///< what was not published cannot be done
  static constexpr bool kErrorsEndWaits = true;         ///< a failed queue is left at once
  static constexpr uint64_t kPositions = ~uint64_t(0);  ///< bits of positions that are compared
  MORI_DEVICE static void dawdle() {}                   ///< where a broken rule shows if the lane is slow
};

/// Keeps the first `count` lanes of a mask.
MORI_DEVICE mask_t first_lanes(mask_t mask, uint32_t count) {
  if (count_lanes(mask) <= count) return mask;
  mask_t others = mask;
  for (uint32_t i = 0; i < count; ++i) others &= others - 1;
  return mask & ~others;
}

/// Lanes of a warp of which all execute the same code, and whose ballots are the whole warp's: post_lanes().
struct WarpLanes {
  mask_t mask;
  MORI_DEVICE mask_t ballot(bool predicate) const { return mori::ballot(predicate); }
  template <class T>
  MORI_DEVICE T shuffle(T value, uint32_t source) const {
    return mori::shuffle(value, source);
  }
  MORI_DEVICE void sync() const { sync_warp(); }
};

MORI_DEVICE bool is_dead(const Queue& queue) { return load_relaxed<Scope::system>(&queue.error) != 0; }

/// Kills the queue; the first error stays. Callers: any lane.
MORI_DEVICE void kill(Queue& queue, uint64_t error) {
  static_cast<void>(compare_swap_relaxed<Scope::system>(&queue.error, uint64_t(0), kQueueFailed | error));
}
/// Tells the host that the queue is dead. Callers: any lane.
MORI_DEVICE void report(const World& world, const Queue& queue) {
  fail(world, Wait::ibgda_error, Refusal::none, queue.peer, uint64_t(queue.family),
       load_relaxed<Scope::system>(&queue.error));
}

/// Takes the completions that are there, if nobody else does. Callers: any lane.
template <class F, class R>
MORI_DEVICE void poll(Queue& queue) {
  if (!try_lock<Scope::device>(&queue.poll_lock)) return;
  // at most a ring at once: then others may look for themselves
  for (uint32_t i = 0; i < queue.cq_depth; ++i) {
    Completion found;
    if (!F::of(queue).take(queue, found)) break;
    if (found.failed) {
      kill(queue, uint64_t(found.vendor) << 8 | found.status);
      break;
    }
    // behind take()'s acquire: whatever the NIC can name was published before
    const uint64_t published = load_relaxed<Scope::system>(&queue.published);
    if (found.completed > queue.completed && (found.completed <= published || !R::kBoundsCompletions))
      store_release<Scope::system>(&queue.completed, found.completed);
  }
  unlock<Scope::device>(&queue.poll_lock);
}

/// Until `completed` reaches `goal`; polls meanwhile. Callers: any lane. Orders: acquire.
/// Fails: false; the error word is set.
template <class F, class R>
MORI_DEVICE bool wait_progress(const World& world, Queue& queue, uint64_t goal, Wait what) {
  uint64_t seen = 0;
  const auto reached = [&] {
    seen = load_acquire<Scope::system>(&queue.completed);
    return (seen & R::kPositions) >= (goal & R::kPositions);
  };
  const bool came = poll_until(
      world,
      [&] {
        if (reached()) return true;
        poll<F, R>(queue);
        return reached() || (R::kErrorsEndWaits && is_dead(queue));
      },
      goal, what, queue.peer, seen);
  if (!came || reached()) return came;
  report(world, queue);
  return false;
}

/// Takes `units` positions and waits until their units are free. Callers: one lane of a group.
/// Orders: the NIC's reading of what was there before, before this lane's later stores. Fails: 0.
template <class F, class R>
MORI_DEVICE bool reserve(const World& world, Queue& queue, uint32_t units, uint64_t& base) {
  if (is_dead(queue)) {
    report(world, queue);
    return false;
  }
  base = fetch_add_relaxed<Scope::device>(&queue.reserved, uint64_t(units));
  const uint64_t used = base + units + F::of(queue).gap() - R::kRoomSlack, first = queue.first_position;
  if (!R::kWaitsForRoom || used <= first + queue.depth) return true;
  if (wait_progress<F, R>(world, queue, used - queue.depth, Wait::ibgda_room)) return true;
  kill(queue, kQueueAbandoned);
  return false;
}

/// Waits until all entries before `base` are published. Callers: one lane of a group. Orders: acquire.
template <class R>
MORI_DEVICE bool wait_turn(const World& world, Queue& queue, uint64_t base) {
  uint64_t seen = 0;
  const bool came = poll_until(
      world,
      [&] {
        seen = load_acquire<Scope::system>(&queue.published);
        return seen == base || !R::kPublishesInOrder || is_dead(queue);
      },
      base, Wait::ibgda_turn, queue.peer, seen);
  if (came && (seen == base || !R::kPublishesInOrder)) return true;
  if (came) report(world, queue);
  kill(queue, kQueueAbandoned);
  return false;
}

/// Tells the NIC of everything published, if nobody else does. Callers: any lane.
template <class F, class R>
MORI_DEVICE void ring_published(Queue& queue) {
  uint64_t end = R::kReadsPublishedLocked ? 0 : load_acquire<Scope::system>(&queue.published);
  if (!R::kReadsPublishedLocked) R::dawdle();
  if (R::kRingsUnderLock && !try_lock<Scope::device>(&queue.ring_lock)) return;
  // behind the lock: who published before this and found it taken is rung for here
  if (R::kReadsPublishedLocked) end = load_acquire<Scope::system>(&queue.published);
  if ((end != queue.rung || !R::kReadsPublishedLocked) && !is_dead(queue)) {
    if (!R::kRingsUnderLock) R::dawdle();
    F::of(queue).ring(queue, end);
    store_release<Scope::device>(&queue.rung, end);
  }
  if (R::kRingsUnderLock) unlock<Scope::device>(&queue.ring_lock);
}

/// Until the NIC has been told of everything before `end`, by this lane or another. Callers: one lane of a
/// group, which has published `end`.
template <class F, class R>
MORI_DEVICE bool ring(const World& world, Queue& queue, uint64_t end) {
  uint64_t seen = 0;
  const auto rung = [&] {
    seen = load_acquire<Scope::device>(&queue.rung);
    return (seen & R::kPositions) >= (end & R::kPositions);
  };
  const bool came = poll_until(
      world,
      [&] {
        if (rung()) return true;
        ring_published<F, R>(queue);
        return rung() || is_dead(queue);
      },
      end, Wait::ibgda_turn, queue.peer, seen);
  if (!came || rung()) return came;
  report(world, queue);
  return false;
}

/// One group's entries: one reservation, one turn, one doorbell, one completion. Callers: the lanes of
/// `lanes`, of which those in `lanes.mask` are the group (`member`).
template <class F, class R, class Lanes>
MORI_DEVICE uint64_t post_together(const World& world, Queue* queue, const Request& request,
                                   const Lanes& lanes, bool member) {
  const uint32_t leader = first_lane(lanes.mask), me = lane_id();
  const uint32_t units = member ? F::of(*queue).units(request) : 0;
  uint32_t before = 0, total = 0;
  for (uint32_t bit = 0; kMaxUnits >> bit != 0; ++bit) {
    const mask_t have = lanes.ballot((units >> bit & 1u) != 0);
    before += count_lanes(have & ((mask_t(1) << me) - 1)) << bit;
    total += count_lanes(have) << bit;
  }
  uint64_t base = 0;
  uint32_t good = me == leader && reserve<F, R>(world, *queue, total, base);
  good = lanes.shuffle(good, leader);
  if (good == 0) return 0;
  base = lanes.shuffle(base, leader);
  lanes.sync();  // the units are free: the leader knows, and hands it on
  const uint64_t begin = base + before;
  if (member) {
    Request entry = request;
    const bool last = lanes.mask >> me == 1;
    entry.flags = last ? request.flags | kSignaled : request.flags & ~uint32_t(kSignaled);
    F::of(*queue).encode(*queue, begin, entry);
  }
  if (R::kJoins) lanes.sync();
  good = me == leader && wait_turn<R>(world, *queue, base);
  good = lanes.shuffle(good, leader);
  if (good == 0) return 0;
  const bool in_turn = lanes.shuffle(uint32_t(me == leader && F::of(*queue).publishes_each()), leader) != 0;
  if (in_turn) {
    lanes.sync();
    for (mask_t rest = lanes.mask; rest != 0; rest &= rest - 1) {
      if (me == first_lane(rest)) F::of(*queue).publish(*queue, begin, request);
      lanes.sync();
    }
  } else if (me == leader) {
    queue->messages += count_lanes(lanes.mask);
  }
  if (me == leader) {
    store_release<Scope::system>(&queue->published, base + total);
    good = ring<F, R>(world, *queue, base + total);
  }
  good = lanes.shuffle(good, leader);
  return good != 0 ? begin + units : 0;
}

/// Lanes that one group can have without asking for more than the ring holds.
template <class F>
MORI_DEVICE uint32_t group_limit(const Queue& queue) {
  const uint32_t lanes = (queue.depth - F::of(queue).gap()) / kMaxUnits;
  return lanes < 1 ? 1 : lanes;
}
template <class R>
MORI_DEVICE uint64_t group_key(const Queue* queue) {
  return R::kGroupsByQueue ? reinterpret_cast<uint64_t>(queue) : queue->peer;
}

template <class F, class R = Rules>
MORI_DEVICE uint64_t post_as(const World& world, Queue& queue, const Request& request) {
  const ActiveLanes here = active_lanes();
  const uint64_t key = group_key<R>(&queue);
  const uint32_t limit = group_limit<F>(queue);
  uint64_t position = 0;
  // All lanes stay in the loop until the last is served: `remaining` is the same for all of them.
  for (mask_t remaining = here.mask; remaining != 0;) {
    const uint32_t leader = first_lane(remaining);
    const mask_t same = here.ballot(key == here.shuffle(key, leader)) & remaining;
    const mask_t group = first_lanes(same, here.shuffle(limit, leader));
    if ((group >> lane_id() & 1u) != 0)
      position = post_together<F, R>(world, &queue, request, ActiveLanes{group}, true);
    remaining &= ~group;
  }
  return position;
}
template <class F, class R = Rules>
MORI_DEVICE uint64_t post_lanes_as(const World& world, Queue* queue, const Request& request, bool wants) {
  const uint64_t key = wants ? group_key<R>(queue) : 0;
  const uint32_t limit = wants ? group_limit<F>(*queue) : 0;
  uint64_t position = 0;
  for (mask_t remaining = ballot(wants); remaining != 0;) {
    const uint32_t leader = first_lane(remaining);
    const uint64_t served = shuffle(key, leader);
    const mask_t same = ballot(wants && key == served) & remaining;
    const WarpLanes group{first_lanes(same, shuffle(limit, leader))};
    const bool member = (group.mask >> lane_id() & 1u) != 0;
    const uint64_t end = post_together<F, R>(world, queue, request, group, member);
    if (member) position = end;
    remaining &= ~group.mask;
  }
  return position;
}
template <class F, class R = Rules>
MORI_DEVICE bool wait_completed_as(const World& world, Queue& queue, uint64_t position) {
  return position != 0 && wait_progress<F, R>(world, queue, position, Wait::ibgda_completion);
}
template <class F, class R = Rules>
MORI_DEVICE bool quiet_as(const World& world, Queue& queue) {
  const uint64_t goal =
      load_acquire<Scope::system>(R::kQuietReadsPublished ? &queue.published : &queue.completed);
  return wait_progress<F, R>(world, queue, goal, Wait::ibgda_completion);
}

/// A queue is in global memory; its reference, handed to a function that is not inlined, no longer says so.
MORI_DEVICE Queue& in_global(Queue& queue) { return *global<Queue>(reinterpret_cast<uint64_t>(&queue)); }

/// Posts a request. Returns the position behind its entry, for wait_completed().
/// Callers: any lane; those that are together share a turn and a doorbell.
/// Orders:  this lane's earlier accesses, and those of lanes it synchronised with, before the NIC executes
/// it;
///          behind all that was posted to the queue before.
/// Fails:   0: the queue is dead, or no room or turn in time (Wait::ibgda_error, ibgda_room, ibgda_turn).
[[nodiscard]] MORI_DEVICE_NOINLINE uint64_t post(const World& world, Queue& queue, const Request& request) {
  return post_as<AnyFamily>(world, in_global(queue), request);
}
/// post() by a whole warp, each lane with a queue and a request of its own.
/// Callers: all lanes of the warp; `queue` and `request` of those that do not want are not used.
/// Orders, fails: as post().
[[nodiscard]] MORI_DEVICE_NOINLINE uint64_t post_lanes(const World& world, Queue* queue,
                                                       const Request& request, bool wants) {
  return post_lanes_as<AnyFamily>(world, global<Queue>(reinterpret_cast<uint64_t>(queue)), request, wants);
}
/// Until everything before `position` is done: effects at the target, results here.
/// Callers: any lane. Orders: acquire: what reads and atomics brought is visible to this lane.
/// Fails:   false: Wait::ibgda_completion, ibgda_error, or the position is 0.
[[nodiscard]] MORI_DEVICE_NOINLINE bool wait_completed(const World& world, Queue& queue, uint64_t position) {
  return wait_completed_as<AnyFamily>(world, in_global(queue), position);
}
/// Until everything is done that was published before. Callers, orders, fails: as wait_completed().
[[nodiscard]] MORI_DEVICE_NOINLINE bool quiet(const World& world, Queue& queue) {
  return quiet_as<AnyFamily>(world, in_global(queue));
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori::ibgda
