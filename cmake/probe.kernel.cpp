// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Compiled while configuring: does this device compiler really make a code object of our prelude? Its
// version alone does not tell whether the AMDGPU back end, a linker or a host compiler is there.
#include "src/core/device/prelude.hpp"

namespace mori {
struct ProbeArgs {
  uint64_t flag;
};

MORI_KERNEL(probe, ProbeArgs, 64) {
  if (block_lane() == 0) store_release<Scope::system>(global<uint64_t>(args.flag), uint64_t(1));
}
}  // namespace mori
