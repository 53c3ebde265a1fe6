// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Combine of bf16 rows that return as fp8.
#include "src/ops/ep/ep_combine_narrow.hpp"
#include "src/ops/ep/ep_combine_kernel.hpp"

namespace mori {

MORI_KERNEL(ep_combine_narrow, EpCombineArgs, 512) { combine<NarrowRows<bfloat16>>(args); }

}  // namespace mori
