// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Combine of fp16 rows. One unit for each element type, so that they compile side by side.
#include "src/ops/ep/ep_combine_kernel.hpp"

namespace mori {

MORI_KERNEL(ep_combine_fp16, EpCombineArgs, 512) { combine<WideRows<float16>>(args); }

}  // namespace mori
