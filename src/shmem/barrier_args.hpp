// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The memory of a barrier and the argument block of its kernel, the same bytes on the host and on every
// target.
#pragma once
#include <stdint.h>

#include "src/core/device/world.hpp"

namespace mori {
namespace shmem {

/// Symmetric memory, zero-filled when made: entry s of every rank's array is the number of barriers that rank
/// s has entered, and only rank s writes it.
struct BarrierState {
  uint64_t signals;  ///< heap offset of uint64_t[world_size]
};

}  // namespace shmem

struct BarrierArgs {
  World world;
  shmem::BarrierState state;
};
static_assert(sizeof(BarrierArgs) == 40, "layout");

}  // namespace mori
