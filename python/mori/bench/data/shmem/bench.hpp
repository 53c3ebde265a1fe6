// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// What the kernels of `mori bench shmem` share: their arguments, who calls, what is noted. docs/benchmark.md
// says what is measured; python/mori/bench/shmem_kernels.py launches them.
#pragma once
#include <mori/shmem.hpp>

namespace mori {

enum class BenchScope : uint32_t { thread, warp, block };

struct ShmemBenchArgs {
  World world;
  shmem::Team team;      // all ranks
  uint64_t target;       // symmetric: where bytes land
  uint64_t source;       // any memory of this device
  uint64_t signals;      // symmetric: uint64_t[world_size + 2], only grow
  uint64_t times;        // uint64_t[]: ticks; see note_span() and Samples
  uint64_t wrong;        // uint64_t: words that were not what they should be
  uint64_t bytes;        // of one operation; of all groups together where several share it
  uint64_t first_round;  // number of the last round of earlier launches: signals begin behind it
  uint32_t rounds;       // operations of a sample
  uint32_t samples;
  uint32_t peer;
  BenchScope scope;
  uint32_t check;   // 1: look at what arrives in each round; such a launch is not timed
  uint32_t queues;  // over which puts go in turn
};
static_assert(sizeof(ShmemBenchArgs) == sizeof(World) + sizeof(shmem::Team) + 7 * 8 + 6 * 4,
              "layout of shmem_kernels.py");

namespace bench {
inline namespace MORI_TARGET_NAMESPACE {

/// body(group, index of the group, number of groups), in every group of the launch. Shared memory: 16 bytes.
template <class Body>
MORI_DEVICE void in_groups(BenchScope scope, Body body) {
  switch (scope) {
    case BenchScope::thread:
      return body(Thread{}, block_id() * block_lanes() + block_lane(), grid_blocks() * block_lanes());
    case BenchScope::warp:
      return body(Warp{}, global_warp(), grid_warps());
    case BenchScope::block:
      return body(Block{shared_memory<uint32_t>()}, block_id(), grid_blocks());
  }
}

/// body(group) in the first group alone.
template <class Body>
MORI_DEVICE void in_one_group(BenchScope scope, Body body) {
  in_groups(scope, [&](auto group, uint32_t index, uint32_t) {
    if (index == 0) body(group);
  });
}

/// A group's part of `bytes`, in whole pieces of 16 but for the last one.
struct Share {
  uint64_t begin, bytes;
};
MORI_DEVICE Share share_of(uint64_t bytes, uint64_t index, uint64_t count) {
  const uint64_t pieces = (bytes + 15) / 16, end = pieces * (index + 1) / count * 16;
  const uint64_t begin = pieces * index / count * 16;
  return {begin, (end < bytes ? end : bytes) - begin};
}

/// times[2 * index], times[2 * index + 1]: when a group began and ended, on the clock of the device.
template <class Group>
MORI_DEVICE void note_span(const ShmemBenchArgs& a, const Group& group, uint32_t index, uint64_t start) {
  group.sync();
  if (group.lane() != 0) return;
  global<uint64_t>(a.times)[2 * uint64_t(index)] = start;
  global<uint64_t>(a.times)[2 * uint64_t(index) + 1] = clock_ticks();
}

/// times[s]: ticks of sample s, `rounds` calls of round(number); one group of the launch. Ends early when a
/// wait fails, which the error word tells.
template <class Group, class Round>
MORI_DEVICE void sample(const ShmemBenchArgs& a, const Group& group, Round round) {
  uint64_t number = a.first_round;
  for (uint32_t s = 0; s < a.samples; ++s) {
    const uint64_t start = clock_ticks();
    for (uint32_t r = 0; r < a.rounds; ++r) {
      if (!round(++number)) return;
    }
    if (group.lane() == 0) global<uint64_t>(a.times)[s] = clock_ticks() - start;
  }
}

/// Counts what is wrong. Callers: any lane.
MORI_DEVICE void expect(const ShmemBenchArgs& a, bool right) {
  if (!right) fetch_add_relaxed<Scope::device>(global<uint64_t>(a.wrong), uint64_t(1));
}

/// The limit's wait: loads and nothing else, no order, and the deadline far apart.
MORI_DEVICE bool bare_wait(const World& world, const uint64_t* word, uint64_t value) {
  uint64_t start = 0;
  for (uint32_t i = 1;; ++i) {
    if (load_relaxed<Scope::system>(word) >= value) return true;
    if (i % 16384 != 0) continue;
    pause(~0u);  // on a CPU the other rank may need this core
    if (start == 0) start = clock_ticks();
    if (world.timeout_ticks != 0 && clock_ticks() - start > world.timeout_ticks) {
      fail(world, Wait::signal, Refusal::none, shmem::kAnyPe, value, load_relaxed<Scope::system>(word));
      return false;
    }
  }
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace bench
}  // namespace mori
