// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The argument block of exchange.kernel.cpp, and where things lie in each rank's heap.
#pragma once
#include <stdint.h>

#include "src/core/device/world.hpp"

namespace mori {

struct ExchangeArgs {
  World world;
  uint64_t send;       ///< uint8[ranks][rows][row_bytes], private
  uint64_t state;      ///< ExchangeState, private
  uint64_t sums;       ///< uint64[lanes of the grid], private: what each lane read of the rows it got
  uint64_t rows;       ///< per pair of ranks
  uint64_t row_bytes;  ///< a multiple of 16
};

struct ExchangeState {
  uint64_t epoch;     ///< rounds that this rank has completed
  uint64_t leaving;   ///< blocks that have finished this round
  uint64_t sent[64];  ///< for each peer: warps that have written their rows of this round
};

// A heap: uint64[64] signals, one for each peer as writer; then uint8[ranks][rows][row_bytes].
inline constexpr uint64_t kExchangeDataAt = 64 * sizeof(uint64_t);

}  // namespace mori
