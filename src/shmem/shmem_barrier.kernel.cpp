// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The barrier in stream order (shmem_barrier.hpp): one block, one lane for each peer where it has as many.
// Each rank raises its entry of every rank's signal array to its next epoch and waits for all entries of its
// own. Work queued earlier has ended when the kernel starts; the release in front of each signal publishes
// it.
#include "src/shmem/barrier_args.hpp"
#include "src/shmem/shmem_device.hpp"

namespace mori {

MORI_KERNEL(shmem_barrier, BarrierArgs, 256) {
  // Whether all came is in the error word, where the host looks.
  static_cast<void>(shmem::barrier(Block{shared_memory<uint32_t>()}, args.world, args.team));
}

}  // namespace mori
