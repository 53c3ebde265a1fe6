// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/ops/ccl/ccl_reduce.hpp"

namespace mori {

MORI_KERNEL(ccl_reduce_i32, CclArgs, 512) { ccl::reduce<int32_t>(args); }
MORI_KERNEL(ccl_reduce_i64, CclArgs, 512) { ccl::reduce<int64_t>(args); }

}  // namespace mori
