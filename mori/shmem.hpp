// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// SHMEM for authors of kernels: OpenSHMEM's operations on symmetric memory, called by a thread, a warp or a
// block. One source compiles for NVIDIA, AMD and CPUs:
//
//   shmem::put_signal(Warp{}, args.world, inbox, words, 1024, arrived, round, shmem::SignalOp::set, right);
//   if (!shmem::signal_wait_until(Warp{}, args.world, arrived, shmem::Cmp::ge, round, left)) return;
//
// docs/shmem_guide.md has whole kernels, docs/shmem.md the rules.
#pragma once
#include "src/shmem/shmem_device.hpp"
