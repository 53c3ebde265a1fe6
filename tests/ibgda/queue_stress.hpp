// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// What the stress kernel and the program that launches it agree on.
#pragma once
#include <stdint.h>

#include "src/core/device/world.hpp"

namespace mori {

/// A rule of the algorithm that is taken away.
enum class Broken : uint32_t {
  none,
  room,         ///< entries are written without waiting for their units
  room_by_one,  ///< the wait for room is one unit short
  join,         ///< a group's stores are not joined before its publish; otherwise as `plain`
  order,        ///< positions are published as they come
  ring_lock,    ///< lanes ring at the same time
  stale_ring,   ///< what to ring for is read before the lock is taken
  by_peer,      ///< lanes are grouped by peer
  quiet,        ///< quiet reads the wrong word
  bound,        ///< completions of what was never published count
  error,        ///< a failed queue does not end waits
  narrow,       ///< positions are compared as 32 bits
  units,        ///< a completion stands for one unit
  plain,        ///< nothing; nor is anything written in turn
  real,         ///< nothing; the queue's own family
};

struct StressArgs {
  World world;
  uint64_t queues;     ///< ibgda::Queue[num_queues]
  uint64_t slots;      ///< uint64_t[lanes * operations], 0: what writes write
  uint64_t results;    ///< uint64_t[lanes * operations], ~0: what reads and additions fetch
  uint64_t counters;   ///< uint64_t[num_queues]
  uint64_t constants;  ///< uint64_t[num_queues]: queue + 7
  uint64_t early;      ///< uint64_t: operations that were not done when they should have been
  uint64_t posted;     ///< uint64_t
  uint32_t num_queues;
  uint32_t operations;  ///< of a lane
  Broken broken;
  uint32_t together;  ///< 1: post_lanes
  uint32_t seed;
  uint32_t lkey, rkey;  ///< of all that the fields above point to
};

/// What lane `lane` of the launch does in its k-th turn: the kernel follows it, the program checks by it.
struct Step {
  uint32_t queue;
  uint32_t kind;  ///< 0 write, 1 addition, 2 read
  bool waits;     ///< for this operation at once
  bool posts;     ///< only post_lanes() has lanes that do not
};
#if defined(__CUDACC__) || defined(__HIP__)
__attribute__((device))
#endif
inline Step
step(uint64_t seed, uint64_t index, uint32_t num_queues, uint32_t together) {
  uint64_t h = (seed << 40 ^ index) + 0x9e3779b97f4a7c15u;
  h = (h ^ h >> 30) * 0xbf58476d1ce4e5b9u;
  h = (h ^ h >> 27) * 0x94d049bb133111ebu;
  h ^= h >> 31;
  return {uint32_t(h % num_queues), uint32_t(h >> 20) % 3, (h >> 40 & 7) == 0,
          together == 0 || (h >> 50 & 15) != 0};
}

}  // namespace mori
