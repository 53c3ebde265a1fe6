// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// SHMEM for authors of kernels: symmetric memory, put, put with a signal, a bounded wait, a barrier, called
// by a thread, a warp or a block. One source compiles for NVIDIA, AMD and CPUs:
//
//   if (!shmem::signal_wait_until(Warp{}, args.world, arrived, round, left)) return;  // my inbox is full
//   shmem::put_signal(Warp{}, args.world, inbox, words, 4096, arrived, round, right);
//
// docs/shmem.md has a whole kernel and the rules: one writer for each signal, values that only grow, a
// deadline on every wait.
#pragma once
#include "src/shmem/shmem_device.hpp"
