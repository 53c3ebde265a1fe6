// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Calls that SHMEM refuses: a reduction in a team without workspace, and operations on a PE that there is
// not.
#include <mori/shmem.hpp>

namespace mori {
struct RefusedArgs {
  World world;
  shmem::Team team;
  uint64_t word;  // symmetric: uint64_t
};

MORI_KERNEL(reduce_without_workspace, RefusedArgs, 64) {
  uint64_t* word = global<uint64_t>(args.word);
  if (shmem::sum_reduce(Warp{}, args.world, args.team, word, word, 1)) *word = ~uint64_t(0);
}

MORI_KERNEL(reach_nobody, RefusedArgs, 64) {
  if (lane_id() != 0) return;
  uint64_t* word = global<uint64_t>(args.word);
  const uint32_t nobody = shmem::n_pes(args.world) + 5;
  shmem::p(args.world, word, uint64_t(77), nobody);
  if (shmem::atomic_fetch_add(args.world, word, uint64_t(1), nobody) != 0) *word = 78;
  shmem::put_signal(Thread{}, args.world, word, word, 0, word, 79, shmem::SignalOp::set, nobody);
}
}  // namespace mori
