// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Atomics at the peer, `rounds` by each lane that takes part, all of one word: one lane by scope thread, all
// of the launch by scope block.
#include "bench.hpp"

namespace mori {
namespace {
inline namespace MORI_TARGET_NAMESPACE {

/// Index of this lane in the launch, or none.
MORI_DEVICE bool takes_part(const ShmemBenchArgs& a, uint32_t& index) {
  index = block_id() * block_lanes() + block_lane();
  return a.scope == BenchScope::block || index == 0;
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace

MORI_KERNEL(bench_atomic_add, ShmemBenchArgs, 1024) {
  uint64_t* word = global<uint64_t>(args.target);
  uint32_t index;
  if (!takes_part(args, index)) return;
  const uint64_t start = clock_ticks();
  for (uint32_t round = 0; round < args.rounds; ++round) {
    shmem::atomic_add(args.world, word, uint64_t(1), args.peer);
  }
  shmem::quiet(Thread{}, args.world);
  bench::note_span(args, Thread{}, index, start);
}

MORI_KERNEL(bench_atomic_fetch_add, ShmemBenchArgs, 1024) {
  uint64_t* word = global<uint64_t>(args.target);
  uint32_t index;
  if (!takes_part(args, index)) return;
  uint64_t last = 0;
  bool grew = true;
  const uint64_t start = clock_ticks();
  for (uint32_t round = 0; round < args.rounds; ++round) {
    const uint64_t before = shmem::atomic_fetch_add(args.world, word, uint64_t(1), args.peer);
    grew = grew && (round == 0 || before > last);
    last = before;
  }
  bench::note_span(args, Thread{}, index, start);
  bench::expect(args, grew);
}

/// The limit of both: the processor's own relaxed addition; the result is used (check = 1) or not.
MORI_KERNEL(bench_bare_add, ShmemBenchArgs, 1024) {
  uint64_t* word = shmem::ptr(args.world, global<uint64_t>(args.target), args.peer);
  uint32_t index;
  if (!takes_part(args, index)) return;
  uint64_t last = 0;
  const uint64_t start = clock_ticks();
  for (uint32_t round = 0; round < args.rounds; ++round) {
    const uint64_t before = fetch_add_relaxed<Scope::system>(word, uint64_t(1));
    if (args.check != 0) last = before > last ? before : last;
  }
  bench::note_span(args, Thread{}, index, start);
  if (args.check != 0) bench::expect(args, last + 1 >= args.rounds);
}

}  // namespace mori
