// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// SHMEM inside kernels: OpenSHMEM's operations on symmetric memory, called by a thread, a warp or a block.
// docs/shmem.md has the rules, docs/shmem_guide.md kernels to begin with.
//
//   transport.hpp         Ctx, my_pe, n_pes, ptr; the way to a PE
//   shmem_rma.hpp         put, get, p, g, iput, iget
//   shmem_signal.hpp      put_signal, signal_op
//   shmem_atomic.hpp      atomic_*
//   shmem_wait.hpp        wait_until, test, signal_fetch, signal_wait_until
//   shmem_order.hpp       fence, quiet
//   shmem_team.hpp        teams, sync, barrier
//   shmem_collective.hpp  broadcast, fcollect, alltoall, reductions
//
// The first argument of an operation with scopes is the group: Thread{}, Warp{} or Block{flag}. All its lanes
// call, with the same arguments. `pe` is a rank and may be my own. A wait that fails returns false in every
// lane of the group, and the error word holds what was waited for; leave the kernel then.
#pragma once
#include "src/shmem/shmem_atomic.hpp"
#include "src/shmem/shmem_collective.hpp"
#include "src/shmem/shmem_order.hpp"
#include "src/shmem/shmem_rma.hpp"
#include "src/shmem/shmem_signal.hpp"
#include "src/shmem/shmem_team.hpp"
#include "src/shmem/shmem_wait.hpp"
#include "src/shmem/transport.hpp"
