// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// One row out of the members' rows, element by element in the order of the members, rounded once:
//
//   combine_rows<T>(group, to, rows, members, n, reduction, mine)       rows(i): const T* of member i
//
// Sums of fp8, fp16 and bf16 are in fp32; integers wrap. Equal input gives equal bits, whatever the group,
// alignment and target. docs/ccl.md, "Sums".
#pragma once
#include "src/core/device/blocks_piece.hpp"
#include "src/core/device/blocks_sum.hpp"
#include "src/ops/ccl/ccl_args.hpp"

namespace mori {
inline namespace MORI_TARGET_NAMESPACE {
namespace ccl {

/// A byte that is an fp8 number.
template <class Format>
struct Narrow {
  uint8_t bits;
};

template <class T>
MORI_DEVICE T widen(T value) {
  return value;
}
MORI_DEVICE float widen(bfloat16 value) { return to_float(value); }
MORI_DEVICE float widen(float16 value) { return to_float(value); }
template <class Format>
MORI_DEVICE float widen(Narrow<Format> value) {
  return Format::decode(value.bits);
}

template <class T>
MORI_DEVICE void narrow(T value, T& out) {
  out = value;
}
MORI_DEVICE void narrow(float value, bfloat16& out) { from_float(value, out); }
MORI_DEVICE void narrow(float value, float16& out) { from_float(value, out); }
template <class Format>
MORI_DEVICE void narrow(float value, Narrow<Format>& out) {
  out.bits = uint8_t(Format::encode(value));
}

template <class T>
using Wide = decltype(widen(T{}));

// Integers overflow as unsigned ones do. Small ones become int before they are added.
template <class T>
struct Unsigned {
  using Type = T;
};
template <>
struct Unsigned<int32_t> {
  using Type = uint32_t;
};
template <>
struct Unsigned<int64_t> {
  using Type = uint64_t;
};

template <CclReduction R, class W>
MORI_DEVICE W join(W a, W b) {
  using U = typename Unsigned<W>::Type;
  if constexpr (R == CclReduction::min) {
    return b < a || b != b ? b : a;
  } else if constexpr (R == CclReduction::max) {
    return a < b || b != b ? b : a;
  } else if constexpr (R == CclReduction::prod) {
    return W(U(a) * U(b));
  } else {
    return W(U(a) + U(b));
  }
}

/// What the first row is joined with; of the others the first row is where it begins.
template <class W>
MORI_DEVICE W begin(CclReduction r, W first) {
  const bool sums = r == CclReduction::sum || r == CclReduction::avg;
  return sums ? join<CclReduction::sum>(W(0), first) : first;
}
template <class W>
MORI_DEVICE W finish(CclReduction r, W value, uint32_t members) {
  return r == CclReduction::avg ? W(value / W(members)) : value;
}

template <class W>
MORI_DEVICE W join(CclReduction r, W a, W b) {
  switch (r) {
    case CclReduction::min:
      return join<CclReduction::min>(a, b);
    case CclReduction::max:
      return join<CclReduction::max>(a, b);
    case CclReduction::prod:
      return join<CclReduction::prod>(a, b);
    default:
      return join<CclReduction::sum>(a, b);
  }
}

#if defined(MORI_WARP_COPY_IS_MEMCPY)
// One lane is the warp: plain loops over a piece of the row, which the compiler makes vectors of.
template <CclReduction R, class T>
MORI_DEVICE void join_piece(Wide<T>* to, const T* row, uint32_t n) {
  for (uint32_t i = 0; i < n; ++i) to[i] = join<R>(to[i], widen(row[i]));
}
template <class T>
MORI_DEVICE void join_piece(CclReduction r, Wide<T>* to, const T* row, uint32_t n) {
  switch (r) {
    case CclReduction::min:
      return join_piece<CclReduction::min>(to, row, n);
    case CclReduction::max:
      return join_piece<CclReduction::max>(to, row, n);
    case CclReduction::prod:
      return join_piece<CclReduction::prod>(to, row, n);
    default:
      return join_piece<CclReduction::sum>(to, row, n);
  }
}
template <class T>
inline constexpr bool kHasSumLoops = false;
template <>
inline constexpr bool kHasSumLoops<bfloat16> = true;
template <>
inline constexpr bool kHasSumLoops<float16> = true;
template <>
inline constexpr bool kHasSumLoops<float> = true;

/// Whether combine_rows() leaves the row in its second place too.
inline constexpr bool kCombinesTwice = true;

/// Up to kPieceElements. Callers: one lane.
template <class T, class Rows>
MORI_DEVICE void combine_piece(T* to, Rows rows, uint32_t members, size_t start, uint32_t n, CclReduction r) {
  Wide<T> all[kPieceElements];
  const bool sums = r == CclReduction::sum || r == CclReduction::avg;
  if constexpr (kHasSumLoops<T>) {
    if (sums) {
      memset(all, 0, n * sizeof(float));
      for (uint32_t i = 0; i < members; ++i) add_piece(all, rows(i) + start, n);
      for (uint32_t e = 0; r == CclReduction::avg && e < n; ++e) all[e] = finish(r, all[e], members);
      return round_piece(to + start, all, n);
    }
  }
  const T* first = rows(0) + start;
  for (uint32_t e = 0; e < n; ++e) all[e] = begin(r, widen(first[e]));
  for (uint32_t i = 1; i < members; ++i) join_piece<T>(r, all, rows(i) + start, n);
  for (uint32_t e = 0; e < n; ++e) narrow(finish(r, all[e], members), to[start + e]);
}
#else
inline constexpr bool kCombinesTwice = false;

/// 16 bytes of every row, some rows in flight. Callers: any lane.
template <class T, class Rows>
MORI_DEVICE void combine_pack(T* to, Rows rows, uint32_t members, size_t at, CclReduction r) {
  constexpr uint32_t kElements = Pack<T>::kElements, kRows = kElements > 8 ? 1 : kElements == 4 ? 4 : 2;
  Wide<T> all[kElements];
  MORI_NO_UNROLL
  for (uint32_t from = 0; from < members; from += kRows) {
    Pack<T> packs[kRows];
    MORI_UNROLL
    for (uint32_t i = 0; i < kRows; ++i) {
      if (from + i < members) {
        packs[i] =
            __builtin_bit_cast(Pack<T>, load_fresh(reinterpret_cast<const AnyVec16*>(rows(from + i) + at)));
      }
    }
    MORI_UNROLL
    for (uint32_t i = 0; i < kRows; ++i) {
      if (from + i >= members) continue;
      MORI_UNROLL
      for (uint32_t e = 0; e < kElements; ++e) {
        const Wide<T> value = widen(packs[i].element[e]);
        all[e] = from + i == 0 ? begin(r, value) : join(r, all[e], value);
      }
    }
  }
  Pack<T> result;
  MORI_UNROLL
  for (uint32_t e = 0; e < kElements; ++e) narrow(finish(r, all[e], members), result.element[e]);
  store_pack(to + at, result);
}
#endif

/// The file's head says it all. `mine` is not null where `to` is for others, who read it behind a meeting;
/// the row goes to both if kCombinesTwice. `to` or `mine` may be one of the rows. Callers: the group. Orders:
/// nothing; finish_large_copies() before the meeting.
template <class T, class Group, class Rows>
MORI_DEVICE void combine_rows(const Group& group, T* to, Rows rows, uint32_t members, size_t n,
                              CclReduction r, [[maybe_unused]] T* mine = nullptr) {
#if defined(MORI_WARP_COPY_IS_MEMCPY)
  T* at = mine == nullptr ? to : mine;
  for (size_t start = size_t(group.lane()) * kPieceElements; start < n;
       start += size_t(group.lanes()) * kPieceElements) {
    const uint32_t some = blocks::elements_at<kPieceElements>(start, n);
    combine_piece(at, rows, members, start, some, r);
    if (mine != nullptr) copy_shared(Thread{}, to + start, at + start, some * sizeof(T));
  }
#else
  bool aligned = blocks::is_aligned(to);
  for (uint32_t i = 0; i < members; ++i) aligned = aligned && blocks::is_aligned(rows(i));
  constexpr uint32_t kElements = Pack<T>::kElements;
  const size_t packs = aligned ? n / kElements : 0;
  MORI_NO_UNROLL
  for (size_t i = group.lane(); i < packs; i += group.lanes()) {
    combine_pack(to, rows, members, i * kElements, r);
  }
  MORI_NO_UNROLL
  for (size_t e = packs * kElements + group.lane(); e < n; e += group.lanes()) {
    Wide<T> all = begin(r, widen(load_fresh(rows(0) + e)));
    MORI_NO_UNROLL
    for (uint32_t i = 1; i < members; ++i) all = join(r, all, widen(load_fresh(rows(i) + e)));
    narrow(finish(r, all, members), to[e]);
  }
#endif
}

}  // namespace ccl
}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori
