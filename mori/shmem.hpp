// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// SHMEM for authors of kernels: mori::shmem::{my_pe, n_pes, ptr, put, put_signal, signal_wait_until,
// barrier}, called by a Thread, a Warp or a Block. One source compiles for NVIDIA, AMD and CPUs:
//
//   #include <mori/shmem.hpp>
//
//   namespace mori {
//   struct HelloArgs { World world; uint64_t inbox, arrived, words; };   // addresses; inbox, arrived:
//   symmetric
//
//   MORI_KERNEL(hello, HelloArgs, 1024) {                                // launched with one block of one
//   warp
//     const uint32_t right = (args.world.rank + 1) % args.world.world_size;
//     const uint32_t left = (args.world.rank + args.world.world_size - 1) % args.world.world_size;
//     uint64_t* arrived = global<uint64_t>(args.arrived);
//     shmem::put_signal(Warp{}, args.world, global<void>(args.inbox), global<void>(args.words), 4096,
//     arrived, 1, right); if (!shmem::signal_wait_until(Warp{}, args.world, arrived, 1, left)) return;
//     // the left neighbour's 4096 bytes are in my inbox
//   }
//   }  // namespace mori
//
// docs/shmem.md tells the rules: one writer for each signal, values that only grow, a deadline on every wait.
#pragma once
#include "src/shmem/shmem_device.hpp"
