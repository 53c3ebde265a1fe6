// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The argument block of the barrier in stream order, the same bytes on the host and on every target.
#pragma once
#include <stdint.h>

#include "src/shmem/team.hpp"

namespace mori {
struct BarrierArgs {
  World world;
  shmem::Team team;
};
static_assert(sizeof(BarrierArgs) == 72, "layout");

}  // namespace mori
