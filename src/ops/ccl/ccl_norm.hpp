// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// all_reduce + residual + RMSNorm in one launch, row by row. docs/ccl_fused.md.
//
// One shot: every member stages all rows, and sums and norms all of them. Two shots: a member stages the
// others' rows, sums its own and adds the residual into `out`; behind the second meeting all take those rows
// and norm them.
#pragma once
#include "src/ops/ccl/ccl_member.hpp"
#include "src/ops/ccl/ccl_norm_row.hpp"

namespace mori {

inline namespace MORI_TARGET_NAMESPACE {
namespace ccl {

/// Elements of the members' sum in their order, rounded to T, and the residual added to that. A row that is
/// summed already is a sum of one member that begins with -0, which changes nothing.
template <class T>
struct RowSum {
  const Member* m;
  const T* own;       ///< of member `index`
  uint64_t staged;    ///< bytes, in the staging of the others
  const T* residual;  ///< null: none
  uint32_t index, members;
  float begin;
  bool aligned;

  MORI_DEVICE const T* row(uint32_t i) const {
    return i == index ? own : reinterpret_cast<const T*>(m->in(i) + staged);
  }
#if defined(MORI_WARP_COPY_IS_MEMCPY)
  MORI_DEVICE void piece(T* to, uint64_t at, uint32_t n) const {
    float all[kPieceElements];
    for (uint32_t i = 0; i < n; ++i) all[i] = begin;
    for (uint32_t i = 0; i < members; ++i) add_piece(all, row(i) + at, n);
    if (residual != nullptr) {
      T sum[kPieceElements];
      round_piece(sum, all, n);
      for (uint32_t i = 0; i < n; ++i) all[i] = -0.0f;
      add_piece(all, sum, n);
      add_piece(all, residual + at, n);
    }
    round_piece(to, all, n);
  }
#else
  MORI_DEVICE void unit(float (&values)[kUnit], uint64_t at) const {
    constexpr uint32_t kEach = Pack<T>::kElements, kRows = 8 / sizeof(T);  // in flight
    MORI_UNROLL
    for (uint32_t e = 0; e < kUnit; ++e) values[e] = begin;
    const uint32_t by_packs = aligned ? members : 0, by_elements = members - by_packs;
    MORI_NO_UNROLL
    for (uint32_t from = 0; from < by_packs; from += kRows) {
      AnyVec16 packs[kRows][kUnit / kEach];
      MORI_UNROLL
      for (uint32_t i = 0; i < kRows; ++i) {
        if (from + i >= members) continue;
        const AnyVec16* place = reinterpret_cast<const AnyVec16*>(row(from + i) + at);
        MORI_UNROLL
        for (uint32_t p = 0; p < kUnit / kEach; ++p) packs[i][p] = load_fresh(place + p);
      }
      MORI_UNROLL
      for (uint32_t i = 0; i < kRows; ++i) {
        if (from + i >= members) continue;
        MORI_UNROLL
        for (uint32_t e = 0; e < kUnit; ++e) {
          values[e] += to_float(__builtin_bit_cast(Pack<T>, packs[i][e / kEach]).element[e % kEach]);
        }
      }
    }
    MORI_NO_UNROLL
    for (uint32_t i = 0; i < by_elements; ++i) {
      const T* place = row(i) + at;
      MORI_UNROLL
      for (uint32_t e = 0; e < kUnit; ++e) values[e] += to_float(load_fresh(place + e));
    }
    MORI_UNROLL
    for (uint32_t e = 0; e < kUnit; ++e) values[e] = rounded<T>(values[e]);
    if (residual == nullptr) return;
    float more[kUnit];
    load_unit(more, residual + at, aligned);
    MORI_UNROLL
    for (uint32_t e = 0; e < kUnit; ++e) values[e] = rounded<T>(values[e] + more[e]);
  }
#endif
};

/// n elements of consecutive rows, not normed. Callers: the block.
template <class T, class From>
MORI_DEVICE void fill_rows(const Block& group, T* to, const From& from, uint64_t n) {
#if defined(MORI_WARP_COPY_IS_MEMCPY)
  (void)group;
  for (uint64_t at = 0; at < n; at += kPieceElements) {
    from.piece(to + at, at, blocks::elements_at<kPieceElements>(at, n));
  }
#else
  MORI_NO_UNROLL
  for (uint64_t at = uint64_t(group.lane()) * kUnit; at < n; at += uint64_t(group.lanes()) * kUnit) {
    float values[kUnit];
    from.unit(values, at);
    store_unit(to + at, values, true);
  }
#endif
}

/// Callers: the block, with shared memory of kGrain + sizeof(WarpResults) bytes.
template <class T>
MORI_DEVICE void reduce_norm(const CclNormArgs& args) {
  const CclArgs& a = args.ccl;
  Member m(a, shared_memory<uint32_t>());
  const uint64_t hidden = args.hidden, row_bytes = hidden * sizeof(T);
  const bool two_shot = a.algorithm == CclAlgorithm::two_shot;
  const T* source = global<const T>(a.source);
  const T* residual = args.residual == 0 ? nullptr : global<const T>(args.residual);
  T* residual_out = global<T>(args.residual_out);
  const bool aligned = ((a.source | a.dest | args.residual | args.residual_out | args.weight) & 15u) == 0;
  const Normed<T> to{global<const T>(args.weight),
                     global<T>(a.dest),
                     global<uint8_t>(a.dest),
                     global<float>(args.scales),
                     CclCodes(args.codes),
                     hidden,
                     args.eps,
                     aligned};
  struct Rows {
    uint64_t begin, n;
  };
  // Rows of a step, which has [at, at + piece): member i's, or all of them in one shot. (In this form: nvcc
  // does not end for sm_80 and sm_90 when one shot returns early.)
  const auto rows_of = [&](uint32_t i, uint64_t at, uint64_t piece) -> Rows {
    const uint64_t here = clipped(at, piece, a.count), each = (here + a.members - 1) / a.members;
    const uint64_t begin = two_shot ? smaller(i * each, here) : 0;
    const uint64_t end = two_shot ? smaller((i + 1) * each, here) : here;
    return {at + begin, end - begin};
  };
  uint32_t turn = 0;
  m.each_step(
      a.count, a.chunk_bytes / row_bytes,
      [&](uint64_t at, uint64_t piece) {
        const uint32_t end = two_shot ? a.members : 1;  // nobody stages rows for itself in two shots
        MORI_NO_UNROLL
        for (uint32_t i = two_shot ? 1 : 0; i < end; ++i) {
          const Rows r = rows_of(m.behind(i), at, piece);
          copy_shared(m.group, m.in(a.index) + (r.begin - at) * row_bytes, source + r.begin * hidden,
                      r.n * row_bytes);
        }
      },
      [&](uint64_t at, uint64_t piece) {
        const auto sum_of = [&](uint64_t row) -> RowSum<T> {
          const T* more = residual == nullptr ? nullptr : residual + row * hidden;
          return {&m, source + row * hidden, (row - at) * row_bytes, more, a.index, a.members, 0.0f, aligned};
        };
        if (two_shot) {
          const Rows mine = rows_of(a.index, at, piece);
          T* staged = reinterpret_cast<T*>(m.out(a.index)) + (mine.begin - at) * hidden;
          fill_rows(m.group, staged, sum_of(mine.begin), mine.n * hidden);
          if (!m.meet(false)) return false;
        }
        // Every row of the step: I sum it, or somebody has.
        const uint64_t rows = clipped(at, piece, a.count), each = (rows + a.members - 1) / a.members;
        MORI_NO_UNROLL
        for (uint64_t i = 0; i < rows; ++i) {
          uint64_t row = i;
          RowSum<T> from = sum_of(at + row);
          if (two_shot) {
            row = (i + a.index * each) % rows;  // not everybody at member 0 first
            const T* ready = reinterpret_cast<const T*>(m.out(uint32_t(row / each)));
            from = {&m, ready + row * hidden, 0, nullptr, 0, 1, -0.0f, true};
          }
          norm_row(m.group, to, at + row, residual_out + (at + row) * hidden, from, turn++);
        }
        return true;
      },
      1);
}

}  // namespace ccl
}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori
