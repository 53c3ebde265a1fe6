// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#pragma once
#include <cstdint>

#include "src/transport/ibgda/types.hpp"

namespace mori::ibgda {

/// Why a request fails, in words that every family has a number for (docs/softnic.md).
enum class Fault : uint32_t {
  none,
  bad_entry,  ///< local queue-pair operation
  local_length,
  local_protection,
  bad_response,
  remote_invalid,
  remote_access,
  remote_operation,
  retry_exceeded,
  rnr_exceeded,
  flushed,
};

constexpr uint32_t status_of(Family family, Fault fault) {
  constexpr uint32_t kTable[4][11] = {
      {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
      {0, 0x02, 0x01, 0x04, 0x10, 0x12, 0x13, 0x14, 0x15, 0x16, 0x05},  // mlx5: syndromes
      {0, 3, 2, 4, 1, 6, 7, 8, 10, 9, 11},                              // bnxt_re: requester status
      {0, 2, 1, 3, 6, 8, 9, 10, 11, 12, 4},                             // ionic
  };
  return kTable[uint32_t(family)][uint32_t(fault)];
}

}  // namespace mori::ibgda
