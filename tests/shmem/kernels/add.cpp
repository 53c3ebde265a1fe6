// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Two kernels for tests/shmem/test_compile_kernel.py; what they add is a define and a header's word.
#include <mori/shmem.hpp>

#include "addend.hpp"

#ifndef EXTRA
#define EXTRA 0
#endif

namespace mori {
struct AddArgs {
  uint64_t values;  // uint32[count]
  uint32_t count;
  uint32_t term;
};

/// values[i] += term + EXTRA + kAddend.
MORI_KERNEL(add, AddArgs, 256) {
  uint32_t* values = global<uint32_t>(args.values);
  const uint32_t step = grid_blocks() * block_lanes();
  for (uint32_t i = block_id() * block_lanes() + block_lane(); i < args.count; i += step) {
    values[i] += args.term + EXTRA + kAddend;
  }
}

MORI_KERNEL(warp_size, AddArgs, 256) {
  if (block_id() == 0 && block_lane() == 0) *global<uint32_t>(args.values) = kWarpSize;
}

struct ReachArgs {
  World world;
  uint64_t slots;  // uint32[ranks], symmetric
};

/// Writes my rank into my slot of every rank.
MORI_KERNEL(reach, ReachArgs, 256) {
  const uint32_t me = shmem::my_pe(args.world);
  for (uint32_t pe = block_lane(); pe < shmem::n_pes(args.world); pe += block_lanes()) {
    *shmem::ptr(args.world, global<uint32_t>(args.slots) + me, pe) = me + 1;
  }
}
}  // namespace mori
