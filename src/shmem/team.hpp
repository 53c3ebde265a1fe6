// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Plain data of SHMEM, the same bytes on the host and on every target: teams, comparisons, signal operations.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "src/core/device/world.hpp"

namespace mori {
namespace shmem {

/// OpenSHMEM's CMP_EQ and so on.
enum class Cmp : uint32_t { eq = 0, ne = 1, gt = 2, ge = 3, lt = 4, le = 5 };

/// OpenSHMEM's SIGNAL_SET and SIGNAL_ADD.
enum class SignalOp : uint32_t { set = 0, add = 1 };

inline constexpr uint32_t kAnyPe = ~uint32_t(0);  ///< of a wait: it is not known who ends it
inline constexpr size_t kNone = ~size_t(0);       ///< an index: no element

/// PEs start, start + stride, ... that act together, and the symmetric memory with which they agree. A PE
/// outside has none. One group of each member uses a team at a time.
struct Team {
  uint64_t signals;    ///< heap offset of uint64_t[size], zero when made: entry i, written by member i alone,
                       ///< is the number of steps it has entered; my own entry is my epoch
  uint64_t workspace;  ///< heap offset of memory for reductions
  uint64_t workspace_bytes;  ///< multiple of 16 * size, at least that
  uint32_t start;            ///< PE of member 0
  uint32_t stride;           ///< from a member's PE to the next one's
  uint32_t size;
  uint32_t index;  ///< which member I am
};
static_assert(sizeof(Team) == 40, "layout");

}  // namespace shmem
}  // namespace mori
