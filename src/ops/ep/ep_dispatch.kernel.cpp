// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Dispatch: each token once to every rank that holds one of its experts. Phases as in docs/ep.md:
//   1 count     every sender block counts the tokens before its own            ep_dispatch_count.hpp
//   2 announce  the last one has counted all: C[me][*], my receive buffer and a digest to every rank
//   3 plan      every block reads all lines of C, so that every place is known  ep_dispatch_plan.hpp
//   4 send      payload and its companions straight to where they stay         ep_dispatch_send.hpp
//   5 publish   each block raises the flags of its chunks at every rank
//   6 receive   waits for the flags of all chunks; copies, in expert layouts   ep_dispatch_receive.hpp
// The announcement is also the credit for the receive buffer: nobody writes before it.
#include "src/ops/ep/ep_dispatch_kernel.hpp"

namespace mori {

MORI_KERNEL(ep_dispatch, EpDispatchArgs, 512) { dispatch<false, AsIs>(args); }
MORI_KERNEL(ep_dispatch_by_expert, EpDispatchArgs, 512) { dispatch<true, AsIs>(args); }

}  // namespace mori
