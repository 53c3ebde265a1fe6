// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Bandwidth: every group of the launch moves its share of `bytes`, `rounds` times, and then completes it.
#include "bench.hpp"

namespace mori {

MORI_KERNEL(bench_put, ShmemBenchArgs, 1024) {
  bench::in_groups(args.scope, [&](auto group, uint32_t index, uint32_t count) {
    const bench::Share part = bench::share_of(args.bytes, index, count);
    char* target = global<char>(args.target) + part.begin;
    const char* source = global<const char>(args.source) + part.begin;
    const uint64_t start = clock_ticks();
    for (uint32_t round = 0; round < args.rounds; ++round) {
      shmem::putmem_nbi(group, args.world, target, source, part.bytes, args.peer);
    }
    shmem::quiet(group, args.world);
    bench::note_span(args, group, index, start);
  });
}

/// From `target` of the peer into `source`, which is private.
MORI_KERNEL(bench_get, ShmemBenchArgs, 1024) {
  bench::in_groups(args.scope, [&](auto group, uint32_t index, uint32_t count) {
    const bench::Share part = bench::share_of(args.bytes, index, count);
    const char* target = global<const char>(args.target) + part.begin;
    char* source = global<char>(args.source) + part.begin;
    const uint64_t start = clock_ticks();
    for (uint32_t round = 0; round < args.rounds; ++round) {
      shmem::getmem_nbi(group, args.world, source, target, part.bytes, args.peer);
    }
    shmem::quiet(group, args.world);
    bench::note_span(args, group, index, start);
  });
}

/// One lane puts 8 bytes and waits until they are there. The first 8 of `source`.
MORI_KERNEL(bench_put_quiet, ShmemBenchArgs, 1024) {
  if (block_id() != 0 || block_lane() != 0) return;
  const Thread group;
  bench::sample(args, group, [&](uint64_t) {
    shmem::putmem_nbi(group, args.world, global<void>(args.target), global<const void>(args.source), 8,
                      args.peer);
    shmem::quiet(group, args.world);
    return true;
  });
}

/// One lane puts 8 bytes `rounds` times, over `queues` in turn, 64 bytes apart, and then completes them.
MORI_KERNEL(bench_put_rate, ShmemBenchArgs, 1024) {
  if (block_id() != 0 || block_lane() != 0) return;
  const Thread group;
  const uint64_t start = clock_ticks();
  for (uint32_t round = 0; round < args.rounds; ++round) {
    const uint32_t queue = round % args.queues;
    shmem::putmem_nbi(group, shmem::Ctx(args.world, queue), global<char>(args.target) + 64 * queue,
                      global<const void>(args.source), 8, args.peer);
  }
  for (uint32_t queue = 0; queue < args.queues; ++queue) {
    shmem::quiet(group, shmem::Ctx(args.world, queue));
  }
  bench::note_span(args, group, 0, start);
}

/// Its limit: bare stores.
MORI_KERNEL(bench_bare_put, ShmemBenchArgs, 1024) {
  if (block_id() != 0 || block_lane() != 0) return;
  char* theirs = shmem::ptr(args.world, global<char>(args.target), args.peer);
  const uint64_t start = clock_ticks();
  for (uint32_t round = 0; round < args.rounds; ++round) {
    store_relaxed<Scope::system>(reinterpret_cast<uint64_t*>(theirs + 64 * (round % args.queues)),
                                 *global<const uint64_t>(args.source));
  }
  bench::note_span(args, Thread{}, 0, start);
}

/// The limit of both on a CPU: the C library's copy, the same shares, into the peer's memory or (check = 1)
/// out of it. On GPUs the limit is the copy engine.
MORI_KERNEL(bench_copy, ShmemBenchArgs, 1024) {
  const uint32_t index = block_id();
  const bench::Share part = bench::share_of(args.bytes, index, grid_blocks());
  char* theirs = shmem::ptr(args.world, global<char>(args.target) + part.begin, args.peer);
  char* mine = global<char>(args.source) + part.begin;
  const uint64_t start = clock_ticks();
  for (uint32_t round = 0; round < args.rounds; ++round) {
    if (block_lane() != 0) break;
    if (args.check != 0) {
      __builtin_memcpy(mine, theirs, part.bytes);
    } else {
      __builtin_memcpy(theirs, mine, part.bytes);
    }
  }
  if (block_lane() == 0) bench::note_span(args, Thread{}, index, start);
}

}  // namespace mori
