// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Dispatch of bf16 tokens that are narrowed to fp8 or fp4 on their way. The phases are those of
// ep_dispatch.kernel.cpp; only what is sent differs (ep_dispatch_convert.hpp). One unit for each element
// type, so that they compile side by side.
#include "src/ops/ep/ep_dispatch_convert.hpp"
#include "src/ops/ep/ep_dispatch_kernel.hpp"

namespace mori {

MORI_KERNEL(ep_dispatch_bf16, EpDispatchArgs, 256) { dispatch<false, Narrowed<bfloat16>>(args); }
MORI_KERNEL(ep_dispatch_by_expert_bf16, EpDispatchArgs, 256) { dispatch<true, Narrowed<bfloat16>>(args); }

}  // namespace mori
