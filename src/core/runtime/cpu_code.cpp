// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Finding, loading and checking a CPU code object.
#include "src/core/runtime/cpu_code.hpp"

#include <dlfcn.h>

#include <algorithm>
#include <filesystem>

#include "src/core/errors.hpp"

namespace mori::core {
namespace {

/// The folder beside this library, not beside the Python package: an editable install has them apart.
std::string default_folder() {
  static const char anchor = 0;
  Dl_info info{};
  if (dladdr(&anchor, &info) == 0 || info.dli_fname == nullptr) return "kernels";
  return (std::filesystem::absolute(info.dli_fname).parent_path() / "kernels").string();
}

}  // namespace

std::string CpuCode::path_in(std::string_view folder, uint32_t warp_size) {
  const std::string directory = folder.empty() ? default_folder() : std::string(folder);
  const std::string path = directory + "/cpu_w" + std::to_string(warp_size) + ".so";
  if (!std::filesystem::exists(path)) {
    throw ConfigError("no CPU kernels for lanes=" + std::to_string(warp_size) + ": " + path +
                      " does not exist; was mori built with this target?");
  }
  return path;
}

CpuCode::CpuCode(std::string path, uint32_t warp_size) : path_(std::move(path)) {
  void* library = dlopen(path_.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) throw ConfigError("cannot load the CPU kernels: " + std::string(dlerror()));
  const auto entry = reinterpret_cast<MoriCpuObject (*)()>(dlsym(library, kMoriCpuObjectSymbol));
  if (entry == nullptr) {
    throw ConfigError(path_ + " is not a CPU code object of mori: it lacks " + kMoriCpuObjectSymbol);
  }
  object_ = entry();
  if (object_.abi != kMoriCpuAbi || object_.warp_size != warp_size) {
    throw ConfigError(path_ + " was built for interface " + std::to_string(object_.abi) +
                      ", lanes=" + std::to_string(object_.warp_size) + "; this library needs interface " +
                      std::to_string(kMoriCpuAbi) + ", lanes=" + std::to_string(warp_size));
  }
  for (const MoriCpuEntry* e = object_.entries; e != nullptr; e = e->next) {
    for (const MoriCpuEntry* other = e->next; other != nullptr; other = other->next) {
      if (std::string_view(e->name) != other->name) continue;
      throw ConfigError(path_ + " has two kernels named " + e->name + "; names are shared by all units");
    }
  }
}

CpuKernel CpuCode::find(std::string_view unit, std::string_view name, size_t args_bytes) const {
  const std::string from = unit.empty() ? "" : " (unit " + std::string(unit) + ")";
  std::string present;
  for (const MoriCpuEntry* e = object_.entries; e != nullptr; e = e->next) {
    present = std::string(e->name) + (present.empty() ? "" : ", ") + present;
    if (name != e->name) continue;
    if (args_bytes != e->args_bytes && !(unit.empty() && args_bytes == 0)) {
      throw ConfigError("kernel " + std::string(name) + from + " of " + path_ +
                        " takes an argument block of " + std::to_string(e->args_bytes) + " bytes, not " +
                        std::to_string(args_bytes) +
                        (unit.empty() ? "" : "; kernels and library are of different builds"));
    }
    const uint32_t max_warps = std::max(1u, e->max_threads / object_.warp_size);
    return {e->name, e->run, e->args_bytes, max_warps, object_.warp_size, object_.current};
  }
  throw ConfigError("no kernel " + std::string(name) + from + " in " + path_ +
                    "; it has: " + (present.empty() ? "none" : present));
}

}  // namespace mori::core
