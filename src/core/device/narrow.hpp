// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Narrow floating-point formats: to nearest even, saturated; the same bits on every target.
//
//   e4m3fn    OCP fp8: bias 7, largest 448, NaN 0x7f
//   e4m3fnuz  CDNA3's fp8: bias 8, largest 240, NaN 0x80, no negative zero
//   e2m1      fp4: 0, 0.5, 1, 1.5, 2, 3, 4, 6; a NaN becomes 6
//   e8m0      a power of two as its exponent, biased by 127
#pragma once
#include "src/core/device/numeric.hpp"

namespace mori {
inline namespace MORI_TARGET_NAMESPACE {

inline constexpr float kE4m3fnLimit = 448.0f, kE4m3fnuzLimit = 240.0f, kE2m1Limit = 6.0f;

/// A magnitude below 2^127, rounded to kBits of mantissa; codes begin with subnormals of step 2^(1 - kBias -
/// kBits) and go on without a gap. Larger than the format's largest where it must be saturated.
template <uint32_t kBits, uint32_t kBias>
MORI_DEVICE uint32_t round_magnitude(uint32_t magnitude) {
  constexpr uint32_t kDrop = 23 - kBits, kFirstNormal = (128 - kBias) << 23;
  // the adder rounds at the subnormals' step, the lowest bit of this
  constexpr uint32_t kAdder = (128 - kBias + kDrop) << 23;
  const uint32_t normal =
      (magnitude + ((1u << (kDrop - 1)) - 1) + (magnitude >> kDrop & 1u) - ((127 - kBias) << 23)) >> kDrop;
  const uint32_t subnormal = bits_of(float_of(magnitude) + float_of(kAdder)) - kAdder;
  return magnitude < kFirstNormal ? subnormal : normal;
}

MORI_DEVICE uint32_t to_e4m3fn(float value) {
  const uint32_t sign = bits_of(value) >> 24 & 0x80u, magnitude = bits_of(value) & 0x7fffffffu;
  const uint32_t code = magnitude >= 0x43e00000u ? 0x7eu : round_magnitude<3, 7>(magnitude);
  return sign | (magnitude > 0x7f800000u ? 0x7fu : code);
}
MORI_DEVICE uint32_t to_e4m3fnuz(float value) {
  const uint32_t sign = bits_of(value) >> 24 & 0x80u, magnitude = bits_of(value) & 0x7fffffffu;
  const uint32_t code = magnitude >= 0x43700000u ? 0x7fu : round_magnitude<3, 8>(magnitude);
  return magnitude > 0x7f800000u ? 0x80u : code == 0 ? 0 : sign | code;
}
MORI_DEVICE uint32_t to_e2m1(float value) {
  const uint32_t sign = bits_of(value) >> 28 & 0x8u, magnitude = bits_of(value) & 0x7fffffffu;
  const uint32_t code = magnitude >= 0x40c00000u ? 7u : round_magnitude<1, 1>(magnitude);
  return magnitude > 0x7f800000u ? 7u : sign | code;
}

/// Four values as bytes of a word, the first lowest.
MORI_DEVICE uint32_t pack_e4m3fn(const float* v) {
#if defined(MORI_HAS_NATIVE_E4M3FN)
  return uint32_t(e4m3fn_pair_native(v[0], v[1])) | uint32_t(e4m3fn_pair_native(v[2], v[3])) << 16;
#else
  return to_e4m3fn(v[0]) | to_e4m3fn(v[1]) << 8 | to_e4m3fn(v[2]) << 16 | to_e4m3fn(v[3]) << 24;
#endif
}
MORI_DEVICE uint32_t pack_e4m3fnuz(const float* v) {
  return to_e4m3fnuz(v[0]) | to_e4m3fnuz(v[1]) << 8 | to_e4m3fnuz(v[2]) << 16 | to_e4m3fnuz(v[3]) << 24;
}
/// Eight values as halves of bytes, the first lowest.
MORI_DEVICE uint32_t pack_e2m1(const float* v) {
  uint32_t word = 0;
  MORI_UNROLL
  for (uint32_t i = 0; i < 8; ++i) word |= to_e2m1(v[i]) << (4 * i);
  return word;
}

/// The smallest power of two that is not below a positive, normal value, as e8m0. Infinity gives the largest.
MORI_DEVICE uint32_t to_e8m0_up(float value) {
  const uint32_t u = bits_of(value), exponent = (u >> 23) + ((u & 0x7fffffu) != 0);
  return exponent > 254 ? 254 : exponent;
}
/// 1 / 2^(byte - 127), and 0 for the largest.
MORI_DEVICE float inverse_of_e8m0(uint32_t byte) { return float_of((254 - byte) << 23); }

/// The larger of a running maximum and a value's magnitude; NaN does not count.
MORI_DEVICE float max_magnitude(float most, float value) {
  const float magnitude = float_of(bits_of(value) & 0x7fffffffu);
  return magnitude > most ? magnitude : most;
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori
