// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Collectives of all ranks, one group of each: `rounds` of them are a sample. The limit of barrier and sync
// is bench_exchange: everybody stores a word at everybody and looks until all have come, with no order at
// all.
#include "bench.hpp"

namespace mori {
namespace {
inline namespace MORI_TARGET_NAMESPACE {

/// call(group) in every round.
template <class Call>
MORI_DEVICE void collective(const ShmemBenchArgs& a, Call call) {
  bench::in_one_group(a.scope,
                      [&](auto group) { bench::sample(a, group, [&](uint64_t) { return call(group); }); });
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace

MORI_KERNEL(bench_sync, ShmemBenchArgs, 1024) {
  collective(args, [&](auto group) { return shmem::sync(group, args.world, args.team); });
}

/// With check = 1 each rank tells its right neighbour the round before the barrier, and looks behind it.
/// Rounds alternate between two words, so that nobody overwrites what has not been looked at.
MORI_KERNEL(bench_barrier, ShmemBenchArgs, 1024) {
  bench::in_one_group(args.scope, [&](auto group) {
    uint64_t* words = global<uint64_t>(args.target);
    const uint32_t next = (args.world.rank + 1) % args.world.world_size;
    bench::sample(args, group, [&](uint64_t number) {
      if (args.check != 0 && group.lane() == 0) shmem::p(args.world, words + number % 2, number, next);
      if (!shmem::barrier(group, args.world, args.team)) return false;
      if (args.check != 0) bench::expect(args, words[number % 2] == number);
      return true;
    });
  });
}

MORI_KERNEL(bench_exchange, ShmemBenchArgs, 1024) {
  bench::in_one_group(args.scope, [&](auto group) {
    uint64_t* board = global<uint64_t>(args.signals) + 2;
    const uint32_t me = args.world.rank, n = args.world.world_size;
    bench::sample(args, group, [&](uint64_t number) {
      bool all = true;
      group.sync();
      for (uint32_t i = group.lane(); i < n; i += group.lanes()) {
        store_relaxed<Scope::system>(shmem::ptr(args.world, board + me, (me + 1 + i) % n), number);
      }
      for (uint32_t i = group.lane(); i < n; i += group.lanes()) {
        all = bench::bare_wait(args.world, board + i, number) && all;
      }
      return group.all(all);
    });
  });
}

// Elements are of 4 bytes; `bytes` is what one rank contributes (broadcast: what the root has; alltoall: for
// each rank).

MORI_KERNEL(bench_broadcast, ShmemBenchArgs, 1024) {
  collective(args, [&](auto group) {
    return shmem::broadcast(group, args.world, args.team, global<uint32_t>(args.target),
                            global<const uint32_t>(args.source), args.bytes / 4, 0);
  });
}

MORI_KERNEL(bench_fcollect, ShmemBenchArgs, 1024) {
  collective(args, [&](auto group) {
    return shmem::fcollect(group, args.world, args.team, global<uint32_t>(args.target),
                           global<const uint32_t>(args.source), args.bytes / 4);
  });
}

MORI_KERNEL(bench_alltoall, ShmemBenchArgs, 1024) {
  collective(args, [&](auto group) {
    return shmem::alltoall(group, args.world, args.team, global<uint32_t>(args.target),
                           global<const uint32_t>(args.source), args.bytes / 4);
  });
}

MORI_KERNEL(bench_reduce, ShmemBenchArgs, 1024) {
  collective(args, [&](auto group) {
    return shmem::sum_reduce(group, args.world, args.team, global<float>(args.target),
                             global<const float>(args.source), args.bytes / 4);
  });
}

}  // namespace mori
