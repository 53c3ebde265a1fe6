// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Combine's arithmetic: the fp32 sum of weighted rows in the order of a list, a piece of the row at a time.
//   a token's sum   [bias] + partial of rank 0 + partial of rank 1 ... ; rounded once to the rows' type
//   a partial       the row of a rank; in the layouts by expert the sum of that rank's copies in top-k
//                   order, rounded to the rows' type on whichever rank it is made
#pragma once
#include "src/core/device/blocks_sum.hpp"
#include "src/ops/ep/ep_combine_block.hpp"

namespace mori {
inline namespace MORI_TARGET_NAMESPACE {

/// What a warp sums: terms of its list, and among them one partial that is itself a sum.
struct CombineSum {
  const CombineTerm* terms;
  uint32_t before;  ///< terms in front of the partial made here
  uint32_t count;   ///< all terms but the copies
  uint32_t copies;  ///< of the partial made here: they begin at terms[count]; 0 = there is none
};

/// A warp's share: pieces first..last - 1 of a token's row.
struct CombineItem {
  uint64_t token;
  uint64_t mask;  ///< ranks that return a row
  CombineSum sum;
  uint32_t first, last;
};

template <uint32_t kPacks, class T>
MORI_DEVICE void sum_packs(const CombineSum& s, T* out, uint32_t start) {
  constexpr uint32_t kElements = Pack<T>::kElements;
  float sum[kPacks][kElements] = {};
  add_all_rows<kPacks, T>(sum, s.terms, s.before, start, kWarpSize);
  if (s.copies != 0) {
    float partial[kPacks][kElements] = {};
    add_all_rows<kPacks, T>(partial, s.terms + s.count, s.copies, start, kWarpSize);
    MORI_UNROLL
    for (uint32_t u = 0; u < kPacks; ++u) {
      MORI_UNROLL
      for (uint32_t e = 0; e < kElements; ++e) {
        T rounded;
        from_float(partial[u][e], rounded);
        sum[u][e] += to_float(rounded);
      }
    }
  }
  add_all_rows<kPacks, T>(sum, s.terms + s.before, s.count - s.before, start, kWarpSize);
  MORI_UNROLL
  for (uint32_t u = 0; u < kPacks; ++u) {
    Pack<T> rounded;
    MORI_UNROLL
    for (uint32_t e = 0; e < kElements; ++e) from_float(sum[u][e], rounded.element[e]);
    store_pack(out + uint64_t(start + u * kWarpSize) * kElements, rounded);
  }
}

#if defined(MORI_WARP_COPY_IS_MEMCPY)
template <class T>
MORI_DEVICE void sum_part(const CombineSum& s, T* out, uint32_t first, uint32_t last) {
  const uint32_t end = last * Pack<T>::kElements;
  for (uint32_t start = first * Pack<T>::kElements; start < end; start += kPieceElements) {
    const uint32_t n = end - start < kPieceElements ? end - start : kPieceElements;
    float sum[kPieceElements];
    memset(sum, 0, n * sizeof(float));
    add_pieces<T>(sum, s.terms, s.before, start, n);
    if (s.copies != 0) {
      float partial[kPieceElements];
      T rounded[kPieceElements];
      memset(partial, 0, n * sizeof(float));
      add_pieces<T>(partial, s.terms + s.count, s.copies, start, n);
      round_piece(rounded, partial, n);
      add_piece(sum, rounded, n);
    }
    add_pieces<T>(sum, s.terms + s.before, s.count - s.before, start, n);
    round_piece(out + start, sum, n);
  }
}
#else
/// Packs first..last - 1 of a row. Callers: the warp.
template <class T>
MORI_DEVICE void sum_part(const CombineSum& s, T* out, uint32_t first, uint32_t last) {
  constexpr uint32_t kPacks = 4;
  uint32_t start = first + lane_id();
  MORI_NO_UNROLL
  for (; start + (kPacks - 1) * kWarpSize < last; start += kPacks * kWarpSize)
    sum_packs<kPacks, T>(s, out, start);
  MORI_NO_UNROLL
  for (; start < last; start += kWarpSize) sum_packs<1, T>(s, out, start);
}
#endif

/// Terms for the copies of a received row, in top-k order: the layouts by expert. Returns how many there are.
/// Callers: the warp; sync_warp() before the terms are read.
template <class T>
MORI_DEVICE uint32_t list_copies(const EpCombineArgs& a, CombineTerm* terms, uint64_t row) {
  const int32_t* routes = global<const int32_t>(a.routing.routes) + row * a.topk;
  uint32_t count = 0;
  for (uint32_t k0 = 0; k0 < a.topk; k0 += kWarpSize) {
    const uint32_t k = k0 + lane_id();
    const int32_t slot = k < a.topk ? routes[k] : -1;
    const mask_t here = ballot(slot >= 0);
    if (slot >= 0) {
      CombineTerm& term = terms[count + count_lanes(here & ((mask_t(1) << lane_id()) - 1))];
      term.address = a.rows + uint64_t(slot) * a.hidden * sizeof(T);
      term.weight = a.row_weights == 0 ? 1.0f : global<const float>(a.row_weights)[row * a.topk + k];
    }
    count += count_lanes(here);
  }
  return count;
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori
