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
  /// The device must be current. Contract: Device::function_of.
  const Function& function_of(const std::string& path, std::string_view name, size_t args_bytes);

 private:
  using Functions = std::map<std::pair<std::string, std::string>, std::unique_ptr<Function>>;
  void* module(const std::string& path);
  Function& prepared(Functions& functions, const std::string& home, const std::string& path,
                     std::string_view name);
  std::string code_object(const std::string& unit) const;

  const GpuDriver& driver_;
  std::string kernel_dir_;
  std::string arch_;
  uint32_t shared_bytes_;
  std::mutex mutex_;                      ///< of the maps
  std::map<std::string, void*> modules_;  ///< by path
  Functions functions_, user_functions_;  ///< by unit, or path, and name
};

}  // namespace mori::core
