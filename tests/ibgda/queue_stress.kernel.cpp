// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Many lanes post mixed operations to a few queues and look whether what should be done is done. With a rule
// of the algorithm broken, somebody must notice.
#include "tests/ibgda/queue_stress.hpp"

#include "tests/ibgda/toy.hpp"

namespace mori {
namespace {

struct NoRoom : ibgda::Rules {
  static constexpr bool kWaitsForRoom = false;
};
struct RoomByOne : ibgda::Rules {
  static constexpr uint32_t kRoomSlack = 1;
};
struct NoJoin : ibgda::Rules {
  static constexpr bool kJoins = false;
};
struct NoOrder : ibgda::Rules {
  static constexpr bool kPublishesInOrder = false;
};
/// Not equally long for all, or lanes that take turns would keep their order.
MORI_DEVICE void let_others_run() {
  for (uint32_t i = 0; i < (block_id() * 5 + lane_id()) % 7; ++i) pause(1u << 20);
}
struct NoRingLock : ibgda::Rules {
  MORI_DEVICE static void dawdle() { let_others_run(); }
  static constexpr bool kRingsUnderLock = false;
};
struct StaleRing : ibgda::Rules {
  MORI_DEVICE static void dawdle() { let_others_run(); }
  static constexpr bool kReadsPublishedLocked = false;
};
struct ByPeer : ibgda::Rules {
  static constexpr bool kGroupsByQueue = false;
};
struct WrongQuiet : ibgda::Rules {
  static constexpr bool kQuietReadsPublished = false;
};
struct NoBound : ibgda::Rules {
  static constexpr bool kBoundsCompletions = false;
};
struct NoError : ibgda::Rules {
  static constexpr bool kErrorsEndWaits = false;
};
struct Narrow : ibgda::Rules {
  static constexpr uint64_t kPositions = 0xffffffffu;
};

MORI_DEVICE bool done(const StressArgs& args, uint64_t index, const Step& s) {
  const uint64_t result = global<const uint64_t>(args.results)[index];
  if (s.kind == 0) return global<const uint64_t>(args.slots)[index] == index + 1;
  return s.kind == 1 ? result != ~uint64_t(0) : result == s.queue + 7;
}

/// A write as real NICs want it: the payload inside the entry, or `long_entry`, the longest one there is.
MORI_DEVICE void write_word(ibgda::Request& request, const uint64_t& payload, bool long_entry) {
  if (long_entry) {
    request.op = ibgda::Op::masked_compare_swap;
    request.value_mask = ~uint64_t(0);
    return;
  }
  request.flags |= ibgda::kInline;
  request.local = reinterpret_cast<uint64_t>(&payload);
}

template <class Family, class R>
MORI_DEVICE_NOINLINE void play(const StressArgs& args) {
  ibgda::Queue* queues = global<ibgda::Queue>(args.queues);
  const uint64_t lane = uint64_t(global_warp()) * kWarpSize + lane_id(), begin = lane * args.operations;
  uint64_t early = 0, posted = 0;
  bool good = true;
  for (uint32_t k = 0; k < args.operations && (args.together != 0 || good); ++k) {
    const uint64_t index = begin + k;
    const Step s = step(args.seed, index, args.num_queues, args.together);
    const ibgda::Op ops[] = {ibgda::Op::write, ibgda::Op::fetch_add, ibgda::Op::read};
    const uint64_t remotes[] = {args.slots + 8 * index, args.counters + 8 * s.queue,
                                args.constants + 8 * s.queue};
    ibgda::Request request;
    request.op = ops[s.kind];
    request.length = 8;
    request.local = args.results + 8 * index;
    request.remote = remotes[s.kind];
    request.value = s.kind == 0 ? index + 1 : 1;
    request.lkey = args.lkey;
    request.rkey = args.rkey;
    const uint64_t payload = index + 1;
    if (args.broken == Broken::real && s.kind == 0)
      write_word(request, payload, queues[s.queue].family == ibgda::Family::mlx5 && (index & 1) != 0);
    uint64_t position;
    if (args.together != 0) {
      position = ibgda::post_lanes_as<Family, R>(args.world, queues + s.queue, request, s.posts && good);
    } else {
      position = ibgda::post_as<Family, R>(args.world, queues[s.queue], request);
    }
    if (!s.posts || !good) continue;
    good = position != 0;
    posted += good;
    if (good && s.waits) {
      good = ibgda::wait_completed_as<Family, R>(args.world, queues[s.queue], position);
      early += good && !done(args, index, s);
    }
  }
  for (uint32_t q = 0; q < args.num_queues && good; ++q) {
    good = ibgda::quiet_as<Family, R>(args.world, queues[q]);
  }
  for (uint32_t k = 0; k < args.operations && good; ++k) {
    const Step s = step(args.seed, begin + k, args.num_queues, args.together);
    early += s.posts && !done(args, begin + k, s);
  }
  fetch_add_relaxed<Scope::system>(global<uint64_t>(args.early), early);
  fetch_add_relaxed<Scope::system>(global<uint64_t>(args.posted), posted);
}

}  // namespace

MORI_KERNEL(queue_stress, StressArgs, 512) {
  switch (args.broken) {
    case Broken::none:
      return play<ibgda::Toy<>, ibgda::Rules>(args);
    case Broken::room:
      return play<ibgda::Toy<>, NoRoom>(args);
    case Broken::room_by_one:
      return play<ibgda::Toy<>, RoomByOne>(args);
    case Broken::join:
      return play<ibgda::Toy<false>, NoJoin>(args);
    case Broken::order:
      return play<ibgda::Toy<>, NoOrder>(args);
    case Broken::ring_lock:
      return play<ibgda::Toy<>, NoRingLock>(args);
    case Broken::stale_ring:
      return play<ibgda::Toy<>, StaleRing>(args);
    case Broken::by_peer:
      return play<ibgda::Toy<>, ByPeer>(args);
    case Broken::quiet:
      return play<ibgda::Toy<>, WrongQuiet>(args);
    case Broken::bound:
      return play<ibgda::Toy<>, NoBound>(args);
    case Broken::error:
      return play<ibgda::Toy<>, NoError>(args);
    case Broken::narrow:
      return play<ibgda::Toy<>, Narrow>(args);
    case Broken::units:
      return play<ibgda::Toy<true, false>, ibgda::Rules>(args);
    case Broken::real:
      return play<ibgda::AnyFamily, ibgda::Rules>(args);
    case Broken::plain:
      return play<ibgda::Toy<false>, ibgda::Rules>(args);
  }
}

}  // namespace mori
