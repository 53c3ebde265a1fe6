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
