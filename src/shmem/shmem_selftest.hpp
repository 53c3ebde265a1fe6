// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The argument block of SHMEM's self-tests (shmem_selftest.kernel.cpp).
#pragma once
#include <stdint.h>

#include "src/core/device/world.hpp"

namespace mori {

enum class SelfTestGroup : uint32_t { thread = 0, warp = 1, block = 2 };

/// What each field means is said at each kernel. Groups are numbered across the grid, by scope.
struct ShmemSelfTestArgs {
  World world;
  uint64_t to;        ///< in my heap
  uint64_t from;      ///< device memory
  uint64_t signals;   ///< in my heap
  uint64_t out;       ///< device memory
  uint64_t bytes;     ///< of one put
  uint64_t stride;    ///< from one group's bytes to the next one's
  uint64_t rounds;    ///< or the value that is waited for
  SelfTestGroup by;   ///< who makes the calls
  uint32_t groups;    ///< groups that take part; the others of the launch do nothing
  uint32_t distance;  ///< from my rank to the first that I write to
  uint32_t pes;       ///< how many ranks each group writes to
};
static_assert(sizeof(ShmemSelfTestArgs) == 112, "layout");

}  // namespace mori
