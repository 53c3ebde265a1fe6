// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// One row out of many: to[e] = weight 0 * row 0[e] + weight 1 * row 1[e] + ...
//
//   reduce<T>(group, to, strided_rows(first, stride, weights), count, n)     rows at equal distances
//   reduce<T>(group, to, list, count, n)                                     a list of WeightedRow
//
// Rows of T, `to` of any element type; fp32 inside, in the order of the rows, rounded once. Equal input gives
// equal bits, whatever the group, alignment and target. No rows give zeros.
// Callers: the group. Any n and alignment of T; memory is global, the list may be shared memory. `to` may be
// one of the rows if it has their type. Orders: nothing; group.sync() before other lanes read the result.
#pragma once
#include "src/core/device/blocks_piece.hpp"
#include "src/core/device/blocks_sum.hpp"

namespace mori {
inline namespace MORI_TARGET_NAMESPACE {
namespace blocks {

struct WeightedRow {
  uint64_t address;
  float weight;
};
/// Row i begins i * stride elements behind the first; without weights all are 1.
template <class T>
struct StridedRows {
  const T* first;
  size_t stride;
  const float* weights;

  MORI_DEVICE WeightedRow operator[](uint32_t i) const {
    return {reinterpret_cast<uint64_t>(first + i * stride), weights == nullptr ? 1.0f : weights[i]};
  }
  MORI_DEVICE StridedRows operator+(uint32_t i) const {
    return {first + i * stride, stride, weights == nullptr ? nullptr : weights + i};
  }
};
template <class T>
MORI_DEVICE StridedRows<T> strided_rows(const T* first, size_t stride, const float* weights = nullptr) {
  return {first, stride, weights};
}

/// kElements values, rounded; their place is a multiple of 8 bytes, and of 16 if they are as many bytes.
template <class T, uint32_t kElements>
MORI_DEVICE void store_rounded(T* to, const float (&values)[kElements]) {
  constexpr uint32_t kBytes = kElements * sizeof(T);
  struct Rounded {
    T element[kElements];
  } rounded;
  MORI_UNROLL
  for (uint32_t e = 0; e < kElements; ++e) from_float(values[e], rounded.element[e]);
  if constexpr (kBytes == sizeof(uint64_t)) {
    *reinterpret_cast<AnyWord64*>(to) = __builtin_bit_cast(uint64_t, rounded);
  } else {
    struct Vectors {
      vec16 vector[kBytes / sizeof(vec16)];
    };
    const Vectors all = __builtin_bit_cast(Vectors, rounded);
    MORI_UNROLL
    for (uint32_t i = 0; i < kBytes / sizeof(vec16); ++i) {
      store_streaming(reinterpret_cast<vec16*>(to) + i, all.vector[i]);
    }
  }
}

/// Callers: one lane.
template <uint32_t kPacks, class T, class Out, class Rows>
MORI_DEVICE void reduce_packs(Out* to, Rows rows, uint32_t count, size_t start, uint32_t apart) {
  constexpr uint32_t kElements = Pack<T>::kElements;
  float sum[kPacks][kElements] = {};
  add_all_rows<kPacks, T>(sum, rows, count, start, apart);
  MORI_UNROLL
  for (uint32_t u = 0; u < kPacks; ++u) store_rounded(to + (start + u * apart) * kElements, sum[u]);
}

/// The file's head says it all.
template <class T, class Out, class Group, class Rows>
MORI_DEVICE void reduce(const Group& group, Out* to, Rows rows, uint32_t count, size_t n) {
#if defined(MORI_WARP_COPY_IS_MEMCPY)
  for (size_t start = size_t(group.lane()) * kPieceElements; start < n;
       start += size_t(group.lanes()) * kPieceElements) {
    const uint32_t here = elements_at<kPieceElements>(start, n);
    float sum[kPieceElements];
    memset(sum, 0, here * sizeof(float));
    add_pieces<T>(sum, rows, count, start, here);
    round_piece(to + start, sum, here);
  }
#else
  constexpr uint32_t kPacks = 4, kElements = Pack<T>::kElements;
  bool aligned = is_aligned(to);
  for (uint32_t i = 0; i < count; ++i) aligned = aligned && is_aligned(global<const T>(rows[i].address));
  const size_t packs = aligned ? n / kElements : 0;
  const uint32_t lanes = group.lanes();
  size_t start = group.lane();
  MORI_NO_UNROLL
  for (; start + (kPacks - 1) * lanes < packs; start += kPacks * lanes) {
    reduce_packs<kPacks, T>(to, rows, count, start, lanes);
  }
  MORI_NO_UNROLL
  for (; start < packs; start += lanes) reduce_packs<1, T>(to, rows, count, start, lanes);
  MORI_NO_UNROLL
  for (size_t e = packs * kElements + group.lane(); e < n; e += lanes) {
    float sum = 0;
    MORI_NO_UNROLL
    for (uint32_t i = 0; i < count; ++i) {
      sum += multiply(rows[i].weight, to_float(global<const T>(rows[i].address)[e]));
    }
    from_float(sum, to[e]);
  }
#endif
}

}  // namespace blocks
}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori
