// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The one translation unit of a CPU code object that defines its thread-local and exports its entries.
#include "src/core/device/prelude.hpp"

namespace mori {
inline namespace MORI_TARGET_NAMESPACE {
__thread MoriCpuLane* current_lane;
const MoriCpuEntry* entry_list;
}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori

extern "C" __attribute__((visibility("default"))) MoriCpuObject mori_cpu_object() {
  return {kMoriCpuAbi, mori::kWarpSize, mori::entry_list,
          +[]() -> MoriCpuLane** { return &mori::current_lane; }};
}
