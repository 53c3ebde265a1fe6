// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// What all families share: words of a ring, and what a completion says.
#pragma once
#include "src/transport/ibgda/providers/byte_order.hpp"
#include "src/transport/ibgda/types.hpp"

namespace mori::ibgda {
inline namespace MORI_TARGET_NAMESPACE {

/// What take() found at the head of a completion ring.
struct Completion {
  bool failed = false;
  uint32_t status = 0;     ///< the family's number
  uint32_t vendor = 0;     ///< more detail where the family has it
  uint64_t completed = 0;  ///< position behind the finished entry
};

/// One 16-byte piece of a ring, low word first. `index` may be one lap too high: a division for each piece
/// would be most of an entry's cost. Callers: one lane.
MORI_DEVICE void store_segment(uint64_t ring, uint64_t index, uint32_t segments, uint64_t first,
                               uint64_t second) {
  uint64_t* to = global<uint64_t>(ring + (index < segments ? index : index - segments) * 16);
  to[0] = first;
  to[1] = second;
}
MORI_DEVICE constexpr uint64_t two(uint32_t low, uint32_t high) { return uint64_t(high) << 32 | low; }

/// Up to 8 bytes of an inline payload, zeros behind its end. Callers: one lane; any memory it can read.
MORI_DEVICE uint64_t inline_word(uint64_t from, uint32_t length, uint32_t offset) {
  const unsigned char* bytes = reinterpret_cast<const unsigned char*>(from);
  uint64_t word = 0;
  for (uint32_t i = 0; i < 8 && offset + i < length; ++i) word |= uint64_t(bytes[offset + i]) << (8 * i);
  return word;
}

/// The 64-bit count nearest behind `known` whose low bits are `seen`.
MORI_DEVICE constexpr uint64_t extend(uint64_t known, uint64_t seen, uint32_t bits) {
  const uint64_t mask = (uint64_t(1) << bits) - 1;
  return known + ((seen - known) & mask);
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori::ibgda
