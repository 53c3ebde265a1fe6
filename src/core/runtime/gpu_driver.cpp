// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// What the two drivers share: finding symbols, and choosing by kind.
#include "src/core/runtime/gpu_driver.hpp"

#include <dlfcn.h>

namespace mori::core {

void* Symbols::find(const char* symbol) const { return ::dlsym(library_, symbol); }

const GpuDriver* gpu_driver(Kind kind, std::string* why) {
  if (kind == Kind::cuda) return cuda_driver(why);
  if (kind == Kind::hip) return hip_driver(why);
  if (why != nullptr) *why = "the CPU is no GPU";
  return nullptr;
}

}  // namespace mori::core
