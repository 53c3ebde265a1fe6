// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The fp32 sum of weighted rows, in the order of a list. Elements are summed each on its own, so how a row is
// shared between lanes changes no bit; products are rounded before they are added. Multiplying by 1 changes
// no value, so an unweighted row needs no code of its own.
//
// `rows` is a pointer or an object like one: rows[i].address, rows[i].weight, rows + i.
#pragma once
#include "src/core/device/collective.hpp"
#include "src/core/device/numeric.hpp"

namespace mori {
inline namespace MORI_TARGET_NAMESPACE {

/// Packs of 16 bytes that each lane adds at a time, `apart` of them: so many loads are in flight.
template <uint32_t kRows, uint32_t kPacks, class T, class Rows, class Index>
MORI_DEVICE void add_rows(float (&sum)[kPacks][Pack<T>::kElements], Rows rows, Index start, uint32_t apart) {
  Pack<T> packs[kRows][kPacks];
  MORI_UNROLL
  for (uint32_t r = 0; r < kRows; ++r) {
    const T* row = global<const T>(rows[r].address);
    MORI_UNROLL
    for (uint32_t u = 0; u < kPacks; ++u) {
      packs[r][u] = load_pack(row + uint64_t(start + u * apart) * Pack<T>::kElements);
    }
  }
  MORI_UNROLL
  for (uint32_t r = 0; r < kRows; ++r) {
    const float weight = rows[r].weight;
    MORI_UNROLL
    for (uint32_t u = 0; u < kPacks; ++u) {
      MORI_UNROLL
      for (uint32_t e = 0; e < Pack<T>::kElements; ++e)
        sum[u][e] += multiply(weight, to_float(packs[r][u].element[e]));
    }
  }
}

/// Adds `count` rows to what `sum` holds.
template <uint32_t kPacks, class T, class Rows, class Index>
MORI_DEVICE void add_all_rows(float (&sum)[kPacks][Pack<T>::kElements], Rows rows, uint32_t count,
                              Index start, uint32_t apart) {
  constexpr uint32_t kRows = kPacks == 1 ? 4 : 2;
  uint32_t i = 0;
  MORI_NO_UNROLL
  for (; i + kRows <= count; i += kRows) add_rows<kRows, kPacks, T>(sum, rows + i, start, apart);
  if constexpr (kRows > 2) {
    if (i + 2 <= count) {
      add_rows<2, kPacks, T>(sum, rows + i, start, apart);
      i += 2;
    }
  }
  if (i < count) add_rows<1, kPacks, T>(sum, rows + i, start, apart);
}

#if defined(MORI_WARP_COPY_IS_MEMCPY)
// One lane is the warp: plain loops over a piece of the row, which the compiler makes vectors of.
inline constexpr uint32_t kPieceElements = 1024;  // the sum and a row's piece stay in the first-level cache

#define MORI_SUM_LOOPS(T)                                                                          \
  [[maybe_unused]] MORI_CPU_CLONES static void add_piece(float* sum, const T* row, uint32_t n) {   \
    for (uint32_t i = 0; i < n; ++i) sum[i] += to_float(row[i]);                                   \
  }                                                                                                \
  [[maybe_unused]] MORI_CPU_CLONES static void add_piece(float* sum, const T* row, uint32_t n,     \
                                                         float weight) {                           \
    for (uint32_t i = 0; i < n; ++i) sum[i] += multiply(weight, to_float(row[i]));                 \
  }                                                                                                \
  [[maybe_unused]] MORI_CPU_CLONES static void round_piece(T* out, const float* sum, uint32_t n) { \
    for (uint32_t i = 0; i < n; ++i) from_float(sum[i], out[i]);                                   \
  }
MORI_SUM_LOOPS(bfloat16)
MORI_SUM_LOOPS(float16)
MORI_SUM_LOOPS(float)
#undef MORI_SUM_LOOPS

/// Elements start..start + n - 1 of `count` rows.
template <class T, class Rows, class Index>
MORI_DEVICE void add_pieces(float* sum, Rows rows, uint32_t count, Index start, uint32_t n) {
  for (uint32_t i = 0; i < count; ++i) {
    const T* row = global<const T>(rows[i].address) + start;
    if (rows[i].weight == 1.0f) {
      add_piece(sum, row, n);
    } else {
      add_piece(sum, row, n, rows[i].weight);
    }
  }
}
#endif

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori
