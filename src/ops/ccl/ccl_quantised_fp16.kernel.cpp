// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/ops/ccl/ccl_quantised.hpp"

namespace mori {

MORI_KERNEL(ccl_fp8_fp16, CclArgs, 512) { ccl::reduce_quantised<ccl::Fp8Wire, float16>(args); }
MORI_KERNEL(ccl_int8_fp16, CclArgs, 512) { ccl::reduce_quantised<ccl::Int8Wire, float16>(args); }
MORI_KERNEL(ccl_int6_fp16, CclArgs, 512) { ccl::reduce_quantised<ccl::Int6Wire, float16>(args); }
MORI_KERNEL(ccl_int4_fp16, CclArgs, 512) { ccl::reduce_quantised<ccl::Int4Wire, float16>(args); }

}  // namespace mori
