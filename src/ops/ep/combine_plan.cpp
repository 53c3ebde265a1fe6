// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/ops/ep/combine_plan.hpp"

#include <algorithm>

namespace mori::ep {
namespace {

// With more rows than this for each block, warps work alone: a block that works together waits for the link
// at each unit, with few rows that is sooner than 16 warps that wait by themselves.
constexpr uint32_t kRowsByBlock = 4;
constexpr uint32_t kSenders = 32;  // blocks that saturate a link
constexpr uint32_t kUnit = 2;      // rows of a warp behind one flag
constexpr uint32_t kCpuUnit = 8;

uint32_t divide(uint64_t value, uint64_t by) { return uint32_t((value + by - 1) / by); }

}  // namespace

uint64_t combine_work(const CombineTuning&, uint32_t tokens, bool cpu) {
  // On a GPU a token is worth a block, at least: the link likes many at once.
  return std::max<uint64_t>(uint64_t(tokens) * (cpu ? 1 : 16), cpu ? 1 : 128);
}

void plan_combine(EpCombineArgs& a, const CombineTuning& tuning, const core::LaunchShape& launch, bool cpu) {
  const auto chosen = [](uint32_t wanted, uint32_t otherwise, uint32_t most) {
    return std::clamp<uint32_t>(wanted != 0 ? wanted : otherwise, 1, most);
  };
  const bool few = tuning.mode != 0 ? tuning.mode == 1 : a.tokens <= uint64_t(kRowsByBlock) * launch.blocks;
  const uint32_t warps = launch.blocks * launch.warps;
  const uint32_t filling = divide(warps, std::max(1u, a.tokens));  // parts that give every warp a share
  if (cpu && tuning.mode == 0) {
    a.senders = chosen(tuning.senders, launch.blocks, launch.blocks);
    a.sender_warps = chosen(tuning.sender_warps, launch.warps, launch.warps);
    a.unit = chosen(tuning.unit, kCpuUnit, 1u << 20);
    a.parts = chosen(tuning.parts, filling, 1u << 20);
  } else if (few) {
    a.senders = chosen(tuning.senders, launch.blocks, launch.blocks);
    a.sender_warps = launch.warps;
    a.by_block = 1;
    a.unit = chosen(tuning.unit, divide(a.tokens, a.senders), 1u << 20);
    a.parts = chosen(tuning.parts, filling, 1u << 20);
  } else {
    const bool apart = launch.blocks >= 2 * kSenders;
    a.senders = chosen(tuning.senders, apart ? kSenders : launch.blocks, launch.blocks);
    a.sender_warps =
        chosen(tuning.sender_warps, apart ? launch.warps : divide(launch.warps, 2), launch.warps);
    a.unit = chosen(tuning.unit, kUnit, 1u << 20);
    a.parts = chosen(tuning.parts, filling, 1u << 20);
    a.tickets = 1;
  }
}

}  // namespace mori::ep
