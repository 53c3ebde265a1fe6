// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The argument block of the prelude's self-tests (selftest.kernel.cpp).
#pragma once
#include <stdint.h>

#include "src/core/device/world.hpp"

namespace mori {

/// What each field means is said at each kernel.
struct SelfTestArgs {
  World world;  ///< only error and timeout_ticks are used
  uint64_t out;
  uint64_t in;
  uint64_t count;
  uint64_t value;
};
static_assert(sizeof(SelfTestArgs) == 72, "layout");

}  // namespace mori
