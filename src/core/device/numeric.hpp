// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Element types that tensors are made of, and how they become fp32 and back. Conversions round to
// nearest even; NaN stays NaN. Formats: IEEE 754 binary16, bfloat16 (upper half of binary32).
#pragma once
#include "src/core/device/prelude.hpp"

namespace mori {
inline namespace MORI_TARGET_NAMESPACE {

struct bfloat16 {
  uint16_t bits;
};
struct float16 {
  uint16_t bits;
};

MORI_DEVICE float to_float(float value) { return value; }
MORI_DEVICE float to_float(bfloat16 value) { return float_of(uint32_t(value.bits) << 16); }

MORI_DEVICE void from_float(float value, float& out) { out = value; }
MORI_DEVICE void from_float(float value, bfloat16& out) {
  const uint32_t u = bits_of(value);
  const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  out.bits = uint16_t((u & 0x7fffffffu) > 0x7f800000u ? (u >> 16) | 0x40u : rounded);
}

#if defined(__HIP__)
MORI_DEVICE float to_float(float16 value) { return float(__builtin_bit_cast(_Float16, value.bits)); }
MORI_DEVICE void from_float(float value, float16& out) {
  out.bits = __builtin_bit_cast(uint16_t, _Float16(value));
}
#elif defined(__CUDACC__)
MORI_DEVICE float to_float(float16 value) {
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(value.bits));
  return f;
}
MORI_DEVICE void from_float(float value, float16& out) {
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out.bits) : "f"(value));
}
#else
// In integers: the baseline x86-64 has no conversion instruction and calls a library function for each.
MORI_DEVICE float to_float(float16 value) {
  const uint32_t sign = uint32_t(value.bits & 0x8000u) << 16, rest = value.bits & 0x7fffu;
  const float scaled =
      float_of(rest << 13) * float_of(0x77800000u);  // 2^112 corrects the exponent, subnormals too
  const uint32_t finite = bits_of(scaled);
  return float_of(sign | (rest >= 0x7c00u ? 0x7f800000u | (rest & 0x3ffu) << 13 : finite));
}
MORI_DEVICE void from_float(float value, float16& out) {
  const uint32_t u = bits_of(value), sign = (u >> 16) & 0x8000u, a = u & 0x7fffffffu;
  uint32_t half;
  if (a > 0x7f800000u) {
    half = 0x7e00u | (a >> 13 & 0x3ffu);
  } else if (a >= 0x477ff000u) {  // rounds to 2^16 or beyond
    half = 0x7c00u;
  } else if (a < 0x38800000u) {  // subnormal: let the adder round at 2^-24
    half = bits_of(float_of(a) + 0.5f) - 0x3f000000u;
  } else {
    half = (a + 0xfffu + ((a >> 13) & 1u) - 0x38000000u) >> 13;
  }
  out.bits = uint16_t(sign | half);
}
#endif

/// 16 bytes of a row as fp32 lanes.
template <class T>
struct Pack {
  static constexpr uint32_t kElements = sizeof(vec16) / sizeof(T);
  T element[kElements];
};
template <class T>
MORI_DEVICE Pack<T> load_pack(const T* p) {
  return __builtin_bit_cast(Pack<T>, load_streaming(reinterpret_cast<const vec16*>(p)));
}
template <class T>
MORI_DEVICE void store_pack(T* p, const Pack<T>& pack) {
  store_streaming(reinterpret_cast<vec16*>(p), __builtin_bit_cast(vec16, pack));
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori
