// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Narrow formats: to nearest even, saturated (an infinity becomes the largest value); the same bits on every
// target, but for the sign of a NaN.
//
//   E4m3fn    OCP fp8: bias 7, largest 448, NaN 0x7f
//   E4m3fnuz  CDNA3's fp8: bias 8, largest 240, NaN 0x80, no negative zero
//   E5m2      OCP fp8: bias 15, largest 57344, NaN 0x7f; infinities are read, not made
//   E2m1      fp4: 0, 0.5, 1, 1.5, 2, 3, 4, 6; a NaN becomes 6
//   Int8 Int6 Int4  two's complement, -127 to 127, -31 to 31, -7 to 7; a NaN becomes 0; -128, -32 and -8 are
//             read, not made
//   e8m0      a power of two as its exponent, biased by 127; 255 is NaN
//
// A format is a type: kBits, kLimit, encode(float) -> code, decode(code) -> float (exact), and pack(values),
// a word of codes, the first lowest, where words hold whole codes. pack_codes() and code_at() take any
// format. docs/blocks.md has the layouts.
#pragma once
#include "src/core/device/numeric.hpp"

namespace mori {
inline namespace MORI_TARGET_NAMESPACE {

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
MORI_DEVICE uint32_t to_e5m2(float value) {
  const uint32_t sign = bits_of(value) >> 24 & 0x80u, magnitude = bits_of(value) & 0x7fffffffu;
  const uint32_t code = magnitude >= 0x47600000u ? 0x7bu : round_magnitude<2, 15>(magnitude);
  return sign | (magnitude > 0x7f800000u ? 0x7fu : code);
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

/// The nearest integer, at most kLimit away from 0, as 32 bits of two's complement; a NaN gives 0.
template <int kLimit>
MORI_DEVICE uint32_t to_integer(float value) {
  constexpr float kMost = float(kLimit);
  const float bounded = value > kMost ? kMost : value < -kMost ? -kMost : value;
  // The adder rounds: the lowest bit of 1.5 * 2^23 is 1.
  const uint32_t code = bits_of(bounded + 12582912.0f) - 0x4b400000u;
  return value != value ? 0 : code;
}

/// A magnitude shifted to where fp32 has its exponent and mantissa, from an exponent biased by kBias. The
/// product is exact, and makes subnormals normal.
template <uint32_t kBias>
MORI_DEVICE float rebias(uint32_t magnitude) {
  return float_of(magnitude) * float_of((254 - kBias) << 23);
}

struct E4m3fn {
  static constexpr uint32_t kBits = 8;
  static constexpr float kLimit = 448.0f;
  MORI_DEVICE static uint32_t encode(float value) { return to_e4m3fn(value); }
  MORI_DEVICE static float decode(uint32_t code) {
    const float magnitude = rebias<7>((code & 0x7fu) << 20);
    const uint32_t finite = (code & 0x80u) << 24 | bits_of(magnitude);
    return float_of((code & 0x7fu) == 0x7fu ? 0x7fc00000u : finite);
  }
  MORI_DEVICE static uint32_t pack(const float* v) { return pack_e4m3fn(v); }
};
struct E4m3fnuz {
  static constexpr uint32_t kBits = 8;
  static constexpr float kLimit = 240.0f;
  MORI_DEVICE static uint32_t encode(float value) { return to_e4m3fnuz(value); }
  MORI_DEVICE static float decode(uint32_t code) {
    const float magnitude = rebias<8>((code & 0x7fu) << 20);
    const uint32_t finite = (code & 0x80u) << 24 | bits_of(magnitude);
    return float_of((code & 0xffu) == 0x80u ? 0x7fc00000u : finite);
  }
  MORI_DEVICE static uint32_t pack(const float* v) { return pack_e4m3fnuz(v); }
};
struct E5m2 {
  static constexpr uint32_t kBits = 8;
  static constexpr float kLimit = 57344.0f;
  MORI_DEVICE static uint32_t encode(float value) { return to_e5m2(value); }
  MORI_DEVICE static float decode(uint32_t code) {
    const uint32_t magnitude = code & 0x7fu;
    const uint32_t finite = bits_of(rebias<15>(magnitude << 21));
    const uint32_t special = magnitude == 0x7cu ? 0x7f800000u : 0x7fc00000u;
    return float_of((code & 0x80u) << 24 | (magnitude >= 0x7cu ? special : finite));
  }
  MORI_DEVICE static uint32_t pack(const float* v) {
    return to_e5m2(v[0]) | to_e5m2(v[1]) << 8 | to_e5m2(v[2]) << 16 | to_e5m2(v[3]) << 24;
  }
};
struct E2m1 {
  static constexpr uint32_t kBits = 4;
  static constexpr float kLimit = 6.0f;
  MORI_DEVICE static uint32_t encode(float value) { return to_e2m1(value); }
  MORI_DEVICE static float decode(uint32_t code) {
    return float_of((code & 0x8u) << 28 | bits_of(rebias<1>((code & 0x7u) << 22)));
  }
  MORI_DEVICE static uint32_t pack(const float* v) { return pack_e2m1(v); }
};
struct Int8 {
  static constexpr uint32_t kBits = 8;
  static constexpr float kLimit = 127.0f;
  MORI_DEVICE static uint32_t encode(float value) { return to_integer<127>(value) & 0xffu; }
  MORI_DEVICE static float decode(uint32_t code) { return float(int32_t(code << 24) >> 24); }
  MORI_DEVICE static uint32_t pack(const float* v) {
    return encode(v[0]) | encode(v[1]) << 8 | encode(v[2]) << 16 | encode(v[3]) << 24;
  }
};
struct Int4 {
  static constexpr uint32_t kBits = 4;
  static constexpr float kLimit = 7.0f;
  MORI_DEVICE static uint32_t encode(float value) { return to_integer<7>(value) & 0xfu; }
  MORI_DEVICE static float decode(uint32_t code) { return float(int32_t(code << 28) >> 28); }
  MORI_DEVICE static uint32_t pack(const float* v) {
    uint32_t word = 0;
    MORI_UNROLL
    for (uint32_t i = 0; i < 8; ++i) word |= encode(v[i]) << (4 * i);
    return word;
  }
};

/// 16 codes fill three words.
struct Int6 {
  static constexpr uint32_t kBits = 6;
  static constexpr float kLimit = 31.0f;
  MORI_DEVICE static uint32_t encode(float value) { return to_integer<31>(value) & 0x3fu; }
  MORI_DEVICE static float decode(uint32_t code) { return float(int32_t(code << 26) >> 26); }
};

/// Codes that lie behind each other, the first in the lowest bits; whole words of them.
template <class Format, uint32_t kWords, uint32_t kElements>
MORI_DEVICE void pack_codes(uint32_t (&words)[kWords], const float (&values)[kElements]) {
  constexpr uint32_t kBits = Format::kBits;
  static_assert(kWords * 32 == kElements * kBits);
  if constexpr (32 % kBits == 0) {
    MORI_UNROLL
    for (uint32_t w = 0; w < kWords; ++w) words[w] = Format::pack(values + w * (32 / kBits));
  } else {
    MORI_UNROLL
    for (uint32_t w = 0; w < kWords; ++w) words[w] = 0;
    MORI_UNROLL
    for (uint32_t e = 0; e < kElements; ++e) {
      const uint32_t code = Format::encode(values[e]), at = e * kBits, shift = at % 32;
      words[at / 32] |= code << shift;
      if (shift + kBits > 32) words[at / 32 + 1] |= code >> (32 - shift);
    }
  }
}
template <class Format, uint32_t kWords>
MORI_DEVICE uint32_t code_at(const uint32_t (&words)[kWords], uint32_t e) {
  constexpr uint32_t kBits = Format::kBits, kMask = (1u << kBits) - 1;
  const uint32_t at = e * kBits, shift = at % 32;
  uint32_t code = words[at / 32] >> shift;
  if (32 % kBits != 0 && shift + kBits > 32) code |= words[at / 32 + 1] << (32 - shift);
  return code & kMask;
}

/// The smallest power of two that is not below a positive, normal value, as e8m0. Infinity gives 255: NaN.
MORI_DEVICE uint32_t to_e8m0_up(float value) {
  const uint32_t u = bits_of(value);
  return (u >> 23) + ((u & 0x7fffffu) != 0);
}
/// 1 / 2^(byte - 127), and 0 for 254 and NaN.
MORI_DEVICE float inverse_of_e8m0(uint32_t byte) { return float_of((254 - (byte < 254 ? byte : 254)) << 23); }
/// 2^(byte - 127); NaN for 255.
MORI_DEVICE float from_e8m0(uint32_t byte) {
  return float_of(byte == 255 ? 0x7fc00000u : byte == 0 ? 0x00400000u : byte << 23);
}

/// What a block is divided by, as it is stored, and what its elements are multiplied by.
struct BlockScale {
  uint32_t stored;  ///< fp32 bits, or an e8m0 byte
  float inverse;
};
inline constexpr float kSmallestAmax = 7.888609052210118e-31f;  // 2^-100: `limit / amax` is finite

/// scale = amax / limit, inverse = limit / amax; as e8m0 the scale is rounded up, so that nothing saturates.
MORI_DEVICE BlockScale scale_for(float amax, float limit, bool e8m0) {
  amax = amax < kSmallestAmax ? kSmallestAmax : amax;
  const float scale = amax / limit, inverse = limit / amax;
  const uint32_t byte = to_e8m0_up(scale);
  return {e8m0 ? byte : bits_of(scale), e8m0 ? inverse_of_e8m0(byte) : inverse};
}

/// The larger of a running maximum and a value's magnitude; NaN does not count.
MORI_DEVICE float max_magnitude(float most, float value) {
  const float magnitude = float_of(bits_of(value) & 0x7fffffffu);
  return magnitude > most ? magnitude : most;
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori
