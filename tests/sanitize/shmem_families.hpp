// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#pragma once
#include <stdint.h>

#include "src/shmem/team.hpp"

namespace mori {

struct ShmemFamiliesArgs {
  World world;
  shmem::Team team;                              ///< all ranks
  uint64_t data, flags, counts, sums, gathered;  ///< in my heap
  uint64_t own, indices, out;                    ///< memory of this rank
  uint64_t words;  ///< uint32_t in data, sums and own; in gathered, of each rank
  uint64_t first, rounds;
  uint64_t by_block;  ///< else by the first warp
};

}  // namespace mori
