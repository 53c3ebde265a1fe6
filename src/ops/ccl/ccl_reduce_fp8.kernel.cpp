// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/ops/ccl/ccl_reduce.hpp"

namespace mori {

MORI_KERNEL(ccl_reduce_e4m3fn, CclArgs, 512) { ccl::reduce<ccl::Narrow<E4m3fn>>(args); }
MORI_KERNEL(ccl_reduce_e5m2, CclArgs, 512) { ccl::reduce<ccl::Narrow<E5m2>>(args); }

}  // namespace mori
