// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/ops/ccl/ccl_reduce.hpp"

namespace mori {

MORI_KERNEL(ccl_reduce_bf16, CclArgs, 512) { ccl::reduce<bfloat16>(args); }
MORI_KERNEL(ccl_reduce_fp16, CclArgs, 512) { ccl::reduce<float16>(args); }
MORI_KERNEL(ccl_reduce_fp32, CclArgs, 512) { ccl::reduce<float>(args); }
MORI_KERNEL(ccl_reduce_fp64, CclArgs, 512) { ccl::reduce<double>(args); }

}  // namespace mori
