// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>

namespace mori::ibgda {

/// The keys of registered memory.
struct RegionKeys {
  uint32_t local = 0;   ///< lkey: what my requests read and write here
  uint32_t remote = 0;  ///< rkey: what my peers' requests do
};

}  // namespace mori::ibgda
