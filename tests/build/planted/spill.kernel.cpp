// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// A kernel that indexes a local array at run time, which lives in slow memory, and one that keeps more values
// alive than a lane has registers, so that tools/kernel_resources.py is known to find both. Not part of the
// library.
#include "src/core/device/prelude.hpp"

namespace mori {
struct SpillArgs {
  uint64_t in, out;
};

MORI_KERNEL(bad_local_array, SpillArgs, 256) {
  uint32_t values[64];
  const uint32_t* in = global<uint32_t>(args.in);
  for (uint32_t i = 0; i < 64; ++i) values[in[i] & 63u] = in[i + 64];
  global<uint32_t>(args.out)[block_lane()] = values[in[block_lane()] & 63u];
}

MORI_KERNEL(bad_pressure, SpillArgs, 1024) {
  constexpr uint32_t kValues = 192;
  uint32_t values[kValues];
  const uint32_t* in = global<uint32_t>(args.in) + block_lane();
  MORI_UNROLL
  for (uint32_t i = 0; i < kValues; ++i) values[i] = load_relaxed<Scope::device>(in + i * 1024);
  uint32_t* out = global<uint32_t>(args.out) + block_lane();
  MORI_UNROLL
  for (uint32_t i = 0; i < kValues; ++i)
    store_relaxed<Scope::device>(out + i * 1024, values[kValues - 1 - i]);
}

MORI_KERNEL(good_sum, SpillArgs, 256) {
  const uint32_t* in = global<uint32_t>(args.in);
  global<uint32_t>(args.out)[block_lane()] = in[block_lane()] + in[block_lane() + 256];
}
}  // namespace mori
