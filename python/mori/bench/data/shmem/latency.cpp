// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Latency: rank 0 and its peer throw a word, or a payload with its signal, to each other; a round is there
// and back. The limit is the same with a relaxed store and relaxed loads.
#include "bench.hpp"

namespace mori {
namespace {
inline namespace MORI_TARGET_NAMESPACE {

/// there(value) throws, came(value) waits for what the other throws.
template <class There, class Came>
MORI_DEVICE bool rally(const World& world, uint64_t value, There there, Came came) {
  if (world.rank == 0) {
    there(value);
    return came(value);
  }
  if (!came(value)) return false;
  there(value);
  return true;
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace

MORI_KERNEL(bench_p, ShmemBenchArgs, 1024) {
  if (block_id() != 0 || block_lane() != 0) return;
  const Thread group;
  uint64_t* word = global<uint64_t>(args.signals);
  bench::sample(args, group, [&](uint64_t number) {
    return rally(
        args.world, number, [&](uint64_t v) { shmem::p(args.world, word, v, args.peer); },
        [&](uint64_t v) { return shmem::wait_until(group, args.world, word, shmem::Cmp::ge, v, args.peer); });
  });
}

/// With source = 0 the payload is a word of shared memory. With check = 1 its first word is the round's
/// number.
MORI_KERNEL(bench_put_signal, ShmemBenchArgs, 1024) {
  bench::in_one_group(args.scope, [&](auto group) {
    uint64_t* arrived = global<uint64_t>(args.signals);
    void* target = global<void>(args.target);
    uint64_t* source = args.source != 0 ? global<uint64_t>(args.source) : shared_memory<uint64_t>() + 1;
    bench::sample(args, group, [&](uint64_t number) {
      return rally(
          args.world, number,
          [&](uint64_t v) {
            if (args.check != 0) {
              if (group.lane() == 0) *source = v;
              group.sync();
            }
            shmem::putmem_signal(group, args.world, target, source, args.bytes, arrived, v,
                                 shmem::SignalOp::set, args.peer);
          },
          [&](uint64_t v) {
            if (!shmem::signal_wait_until(group, args.world, arrived, shmem::Cmp::ge, v, args.peer))
              return false;
            if (args.check != 0) bench::expect(args, *global<const uint64_t>(args.target) == v);
            return true;
          });
    });
  });
}

MORI_KERNEL(bench_bare, ShmemBenchArgs, 1024) {
  if (block_id() != 0 || block_lane() != 0) return;
  uint64_t* mine = global<uint64_t>(args.signals);
  uint64_t* theirs = shmem::ptr(args.world, mine, args.peer);
  bench::sample(args, Thread{}, [&](uint64_t number) {
    return rally(
        args.world, number, [&](uint64_t v) { store_relaxed<Scope::system>(theirs, v); },
        [&](uint64_t v) { return bench::bare_wait(args.world, mine, v); });
  });
}

}  // namespace mori
