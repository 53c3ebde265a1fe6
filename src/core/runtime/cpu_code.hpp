// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Code objects of the CPU device, for one warp size each: <folder>/cpu_w{1,32,64}.so with the kernels of all
// units, and files of the user's own. They stay loaded for the life of the process: kernels hand out
// addresses of their thread-locals.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "src/core/device/cpu_abi.hpp"

namespace mori::core {

/// What Function::handle points at on the CPU.
struct CpuKernel {
  std::string name;
  void (*run)(const void*) = nullptr;
  uint64_t args_bytes = 0;
  uint32_t max_warps = 0;  ///< per block
  uint32_t warp_size = 1;
  MoriCpuLane** (*current)() = nullptr;
};

class CpuCode {
 public:
  CpuCode(std::string path, uint32_t warp_size);
  /// The library's own. `folder` empty: kernels/ beside the library that contains this function.
  static std::string path_in(std::string_view folder, uint32_t warp_size);
  /// Refuses a name that the object lacks and, unless args_bytes is 0 and there is no unit, a kernel compiled
  /// for another argument block. `unit` empty: a file of its own.
  CpuKernel find(std::string_view unit, std::string_view name, size_t args_bytes) const;

 private:
  std::string path_;
  MoriCpuObject object_{};
};

}  // namespace mori::core
