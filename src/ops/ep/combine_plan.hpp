// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// How a combine is spread over a launch: who returns rows, who sums, in what pieces. Heuristics only; any
// choice gives the same result.
#pragma once
#include <cstdint>

#include "src/core/runtime/device.hpp"
#include "src/ops/ep/ep_args.hpp"

namespace mori::ep {

/// What a measurement fixes; 0 = chosen.
struct CombineTuning {
  uint32_t blocks = 0;
  uint32_t senders = 0;       ///< blocks that return rows before they sum
  uint32_t sender_warps = 0;  ///< of each of them
  uint32_t unit = 0;          ///< rows behind one flag
  uint32_t parts = 0;         ///< in which a token's row is summed
  uint32_t mode = 0;          ///< 1: blocks return units together and sum in turn; 2: warps, tickets
};

/// Warps that have something to do, by which the number of blocks is chosen.
uint64_t combine_work(const CombineTuning& tuning, uint32_t tokens, bool cpu);
/// Fills senders, sender_warps, by_block, unit, parts and tickets of `args`.
void plan_combine(EpCombineArgs& args, const CombineTuning& tuning, const core::LaunchShape& launch,
                  bool cpu);

}  // namespace mori::ep
