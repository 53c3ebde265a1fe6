// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Words as a NIC wants them. Written out, because nvcc has no byte-swap builtin that is constexpr on both
// sides.
#pragma once
#include <stdint.h>

#include "src/core/device/prelude.hpp"

namespace mori::ibgda {
inline namespace MORI_TARGET_NAMESPACE {

MORI_DEVICE constexpr uint32_t be32(uint32_t v) {
  return v >> 24 | (v >> 8 & 0xff00u) | (v << 8 & 0xff0000u) | v << 24;
}
MORI_DEVICE constexpr uint64_t be64(uint64_t v) {
  return uint64_t(be32(uint32_t(v))) << 32 | be32(uint32_t(v >> 32));
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori::ibgda
