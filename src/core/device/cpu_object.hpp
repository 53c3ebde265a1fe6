// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// What makes a library a CPU code object: its thread-local, its list of kernels, and the function that hands
// them out. Definitions: included by exactly one translation unit of each code object, which may be the
// kernels' own (`-include src/core/device/cpu_object.hpp`).
#pragma once
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
