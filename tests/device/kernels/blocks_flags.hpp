// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The argument block of blocks_flags.cpp.
#pragma once
#include "src/core/device/world.hpp"

namespace mori {
struct FlagArgs {
  World world;
  uint64_t out;
  uint64_t words;  // uint64_t, 0 before the first launch
  uint64_t count;
  uint64_t value;
};
}  // namespace mori
