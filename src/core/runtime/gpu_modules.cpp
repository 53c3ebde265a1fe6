// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// CUDA has one fat binary per unit (UNIT.fatbin: machine code for several generations and PTX for later
// ones), HIP one object per unit and generation (UNIT.gfx942.hsaco). Modules are never unloaded before the
// process ends: a graph may still hold their kernels.
#include "src/core/runtime/gpu_modules.hpp"

#include <dlfcn.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

namespace mori::core {
namespace {

namespace fs = std::filesystem;

std::string default_kernel_dir() {
  Dl_info info{};
  static const char anchor = 0;
  if (::dladdr(&anchor, &info) == 0 || info.dli_fname == nullptr) return "kernels";
  return (fs::path(info.dli_fname).parent_path() / "kernels").string();
}

std::string objects_in(const std::string& folder, const std::string& ending) {
  std::string list;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(ending)) list += (list.empty() ? "" : ", ") + name;
  }
  return list.empty() ? "there are none" : "there are " + list;
}

}  // namespace

GpuModules::GpuModules(const GpuDriver& driver, std::string kernel_dir, std::string arch,
                       uint32_t shared_bytes)
    : driver_(driver),
      kernel_dir_(kernel_dir.empty() ? default_kernel_dir() : std::move(kernel_dir)),
      arch_(std::move(arch)),
      shared_bytes_(shared_bytes) {}

std::string GpuModules::code_object(const std::string& unit) const {
  const std::string ending = driver_.kind == Kind::cuda ? ".fatbin" : ".hsaco";
  const std::string name = driver_.kind == Kind::cuda ? unit + ending : unit + "." + arch_ + ending;
  const fs::path path = fs::path(kernel_dir_) / name;
  std::error_code error;
  if (fs::exists(path, error)) return path.string();
  throw ConfigError("no code object " + path.string() + " for this " + arch_ + " GPU; " +
                    objects_in(kernel_dir_, ending) + ". Was MoRI built with " + kind_name(driver_.kind) +
                    " for this generation?");
}

void* GpuModules::module(const std::string& path) {
  if (const auto known = modules_.find(path); known != modules_.end()) return known->second;
  std::ifstream file(path, std::ios::binary);
  const std::vector<char> image{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  void* loaded = nullptr;
  const Status status = image.empty() ? -1 : driver_.module_load(&loaded, image.data());
  if (status != 0) {
    driver_.forget_error();
    throw ConfigError("cannot load " + path + " (" + std::to_string(image.size()) + " bytes) on this " +
                      arch_ + " GPU: " + (image.empty() ? "cannot read it" : driver_.error_text(status)));
  }
  return modules_.emplace(path, loaded).first->second;
}

Function& GpuModules::prepared(Functions& functions, const std::string& home, const std::string& path,
                               std::string_view name) {
  auto function = std::make_unique<Function>();
  function->name = name;
  if (driver_.module_function(&function->handle, module(path), function->name.c_str()) != 0) {
    driver_.forget_error();
    throw ConfigError((path == home ? path : "unit '" + home + "'") + " has no kernel '" + function->name +
                      "'");
  }
  if (const Status status = driver_.prepare(function->handle, shared_bytes_, &function->args_bytes)) {
    driver_.forget_error();
    throw ConfigError("cannot prepare kernel '" + function->name + "': " + driver_.error_text(status));
  }
  return *functions.emplace(std::pair{home, function->name}, std::move(function)).first->second;
}

const Function& GpuModules::function(std::string_view unit, std::string_view name, size_t args_bytes) {
  const std::lock_guard lock(mutex_);
  const std::pair key{std::string(unit), std::string(name)};
  const auto known = functions_.find(key);
  Function& function = known != functions_.end()
                           ? *known->second
                           : prepared(functions_, key.first, code_object(key.first), name);
  if (function.args_bytes == 0) function.args_bytes = args_bytes;  // HIP: the first caller's word
  if (function.args_bytes != args_bytes) {
    throw ConfigError("kernel '" + key.second + "' takes an argument block of " +
                      std::to_string(function.args_bytes) + " bytes, the host has one of " +
                      std::to_string(args_bytes) +
                      ": the code objects and this library are of different builds");
  }
  return function;
}

const Function& GpuModules::function_of(const std::string& path, std::string_view name, size_t args_bytes) {
  const std::lock_guard lock(mutex_);
  const auto known = user_functions_.find({path, std::string(name)});
  Function& function =
      known != user_functions_.end() ? *known->second : prepared(user_functions_, path, path, name);
  if (function.args_bytes == 0) function.args_bytes = args_bytes;
  if (args_bytes != 0 && function.args_bytes != args_bytes) {
    throw ConfigError("kernel " + function.name + " of " + path + " takes an argument block of " +
                      std::to_string(function.args_bytes) + " bytes, not " + std::to_string(args_bytes));
  }
  return function;
}

}  // namespace mori::core
