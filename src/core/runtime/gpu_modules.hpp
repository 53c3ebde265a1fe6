// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Finds, loads and remembers one device's code objects and kernels.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "src/core/runtime/gpu_driver.hpp"

namespace mori::core {

class GpuModules {
 public:
  /// `kernel_dir` empty: kernels/ beside the library that holds this code. `shared_bytes`: the most dynamic
  /// shared memory a kernel may ask for.
  GpuModules(const GpuDriver& driver, std::string kernel_dir, std::string arch, uint32_t shared_bytes);

  /// The device must be current. Contract: Device::function.
  const Function& function(std::string_view unit, std::string_view name, size_t args_bytes);

 private:
  void* module(const std::string& unit);
  std::string code_object(const std::string& unit) const;

  const GpuDriver& driver_;
  std::string kernel_dir_;
  std::string arch_;
  uint32_t shared_bytes_;
  std::mutex mutex_;  ///< of both maps
  std::map<std::string, void*> modules_;
  std::map<std::pair<std::string, std::string>, std::unique_ptr<Function>> functions_;
};

}  // namespace mori::core
