// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Pieces of a block that share one scale: what a lane holds, and how the lanes of a block agree on the scale.
#pragma once
#include "src/core/device/collective.hpp"
#include "src/core/device/narrow.hpp"

namespace mori {
inline namespace MORI_TARGET_NAMESPACE {

namespace blocks {
MORI_DEVICE bool is_aligned(const void* p) { return (reinterpret_cast<uint64_t>(p) & 15u) == 0; }

/// Elements of a piece that begins at `at`: all of kElements, some, or none.
template <uint32_t kElements>
MORI_DEVICE uint32_t elements_at(size_t at, size_t n) {
  return at >= n ? 0 : n - at < kElements ? uint32_t(n - at) : kElements;
}

}  // namespace blocks

/// Consecutive elements that one lane holds.
template <class T, uint32_t kElements>
struct Piece {
  static constexpr uint32_t kEach = Pack<T>::kElements, kPacks = kElements / kEach;
  Pack<T> packs[kPacks];

  /// 16-byte aligned.
  MORI_DEVICE void load(const T* from) {
    MORI_UNROLL
    for (uint32_t i = 0; i < kPacks; ++i) packs[i] = load_pack(from + i * kEach);
  }
  /// `count` elements of any alignment, and zeros.
  MORI_DEVICE void load_some(const T* from, uint32_t count) {
    MORI_UNROLL
    for (uint32_t i = 0; i < kElements; ++i) {
      T value{};
      if (i < count) value = from[i];
      packs[i / kEach].element[i % kEach] = value;
    }
  }
  MORI_DEVICE void store(T* to) const {
    MORI_UNROLL
    for (uint32_t i = 0; i < kPacks; ++i) store_pack(to + i * kEach, packs[i]);
  }
  MORI_DEVICE void store_some(T* to, uint32_t count) const {
    MORI_UNROLL
    for (uint32_t i = 0; i < kElements; ++i) {
      if (i < count) to[i] = packs[i / kEach].element[i % kEach];
    }
  }
  MORI_DEVICE float amax() const {
    float most = 0;
    MORI_UNROLL
    for (uint32_t i = 0; i < kElements; ++i) {
      most = max_magnitude(most, to_float(packs[i / kEach].element[i % kEach]));
    }
    return most;
  }
  /// pack(values) makes words of 32 / kBits values each.
  template <uint32_t kBits, class PackWord>
  MORI_DEVICE void narrow(float inverse, uint32_t (&words)[kElements * kBits / 32], PackWord pack) const {
    constexpr uint32_t kOfWord = 32 / kBits;
    MORI_UNROLL
    for (uint32_t w = 0; w < kElements / kOfWord; ++w) {
      float v[kOfWord];
      MORI_UNROLL
      for (uint32_t i = 0; i < kOfWord; ++i) {
        const uint32_t at = w * kOfWord + i;
        v[i] = multiply(to_float(packs[at / kEach].element[at % kEach]), inverse);
      }
      words[w] = pack(v);
    }
  }
};

/// The largest among `kLanes` neighbouring lanes, a power of two. Callers: the warp.
template <uint32_t kLanes>
MORI_DEVICE float max_of_lanes(float value) {
  for (uint32_t step = kLanes / 2; step != 0; step /= 2) {
    const float other = shuffle(value, lane_id() ^ step);
    value = other > value ? other : value;
  }
  return value;
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori
