// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/ops/ccl/ccl_norm.hpp"

namespace mori {

MORI_KERNEL(ccl_norm_bf16, CclNormArgs, 512) { ccl::reduce_norm<bfloat16>(args); }
MORI_KERNEL(ccl_norm_fp16, CclNormArgs, 512) { ccl::reduce_norm<float16>(args); }
MORI_KERNEL(ccl_norm_fp32, CclNormArgs, 512) { ccl::reduce_norm<float>(args); }

}  // namespace mori
