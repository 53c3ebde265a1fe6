// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// RMSNorm of one row by a block, and its codes. docs/ccl_fused.md has the arithmetic.
//
// The squares of a row are summed in an order that is the row's own: element e goes to place e % kPlaces, and
// the places are folded as a tree, neighbours first. So neither the target, nor the number of rows, nor how
// they are shared changes a bit. On a GPU lane i of kRowLanes holds places 8 i to 8 i + 7.
#pragma once
#include "src/core/device/blocks_quantise.hpp"
#include "src/ops/ccl/ccl_arithmetic.hpp"

namespace mori {
inline namespace MORI_TARGET_NAMESPACE {
namespace ccl {

inline constexpr uint32_t kUnit = 8;        // elements that a lane takes at a time; rows are multiples of it
inline constexpr uint32_t kRowLanes = 512;  // of a block, or 1
inline constexpr uint32_t kPlaces = kRowLanes * kUnit;
inline constexpr uint32_t kScaleBlock = 128;  // elements that share a scale

/// What becomes of a row: normed elements, or their codes and scales.
template <class T>
struct Normed {
  const T* weight;
  T* rows;
  uint8_t* codes;
  float* scales;
  CclCodes kind;
  uint64_t hidden;
  float eps;
  bool aligned;  ///< everything that is read and written, to 16 bytes

  MORI_DEVICE uint64_t scales_of_row() const {
    return kind == CclCodes::per_row ? 1 : (hidden + kScaleBlock - 1) / kScaleBlock;
  }
  MORI_DEVICE float inverse(float squares) const { return 1.0f / square_root(squares / float(hidden) + eps); }
};

#if defined(MORI_WARP_COPY_IS_MEMCPY)
#define MORI_NORM_LOOPS(T)                                                                            \
  [[maybe_unused]] MORI_CPU_CLONES static void add_squares(float* places, const T* row, uint32_t n) { \
    for (uint32_t i = 0; i < n; ++i) places[i] += multiply(to_float(row[i]), to_float(row[i]));       \
  }                                                                                                   \
  [[maybe_unused]] MORI_CPU_CLONES static void norm_piece(T* out, const T* row, const T* weight,      \
                                                          float inverse, uint32_t n) {                \
    for (uint32_t i = 0; i < n; ++i) {                                                                \
      from_float(multiply(multiply(to_float(row[i]), inverse), to_float(weight[i])), out[i]);         \
    }                                                                                                 \
  }
MORI_NORM_LOOPS(bfloat16)
MORI_NORM_LOOPS(float16)
MORI_NORM_LOOPS(float)
#undef MORI_NORM_LOOPS

[[maybe_unused]] MORI_CPU_CLONES static void fold_neighbours(float* places, uint32_t n) {
  for (uint32_t i = 0; i < n; ++i) places[i] = places[2 * i] + places[2 * i + 1];
}

/// Callers: one lane, which is the block. `from` fills pieces of the row.
template <class T, class From>
MORI_DEVICE void norm_row(const Block&, const Normed<T>& to, uint64_t row, T* residual, const From& from,
                          uint32_t) {
  const uint64_t n = to.hidden;
  float places[kPlaces];
  memset(places, 0, sizeof places);
  for (uint64_t at = 0; at < n; at += kPieceElements) {
    const uint32_t here = blocks::elements_at<kPieceElements>(at, n);
    from.piece(residual + at, at, here);
    add_squares(places + at % kPlaces, residual + at, here);
  }
  uint32_t used = kPlaces;
  while (used / 2 >= n) used /= 2;  // places behind the row are zero, and so are their sums
  while ((used /= 2) != 0) fold_neighbours(places, used);
  const float inverse = to.inverse(places[0]);
  T piece[kPieceElements];
  const auto each_piece = [&](auto use) {
    for (uint64_t at = 0; at < n; at += kPieceElements) {
      const uint32_t here = blocks::elements_at<kPieceElements>(at, n);
      T* out = to.kind == CclCodes::none ? to.rows + row * n + at : piece;
      norm_piece(out, residual + at, to.weight + at, inverse, here);
      use(at, here);
    }
  };
  if (to.kind == CclCodes::none) return each_piece([](uint64_t, uint32_t) {});
  uint8_t* codes = to.codes + row * n;
  float* scales = to.scales + row * to.scales_of_row();
  if (to.kind == CclCodes::per_block) {
    using Codec = blocks::Codec<E4m3fn, blocks::Fp32Scale, kScaleBlock>;
    return each_piece([&](uint64_t at, uint32_t here) {
      blocks::quantise<Codec>(Thread{}, codes + at, scales + at / kScaleBlock, piece, here);
    });
  }
  float amax = 0;
  each_piece([&](uint64_t, uint32_t here) {
    for (uint32_t i = 0; i < here; ++i) amax = max_magnitude(amax, to_float(piece[i]));
  });
  const BlockScale scale = scale_for(amax, E4m3fn::kLimit, false);
  scales[0] = float_of(scale.stored);
  each_piece([&](uint64_t at, uint32_t here) {
    for (uint32_t i = 0; i < here; ++i) {
      codes[at + i] = uint8_t(E4m3fn::encode(multiply(to_float(piece[i]), scale.inverse)));
    }
  });
}
#else
/// kUnit elements of a row, in fp32.
template <class T>
MORI_DEVICE void load_unit(float (&values)[kUnit], const T* from, bool aligned) {
  blocks::load_elements(values, from, kUnit, aligned);
}
template <class T>
MORI_DEVICE void store_unit(T* to, const float (&values)[kUnit], bool aligned) {
  constexpr uint32_t kEach = Pack<T>::kElements;
  MORI_UNROLL
  for (uint32_t p = 0; p < kUnit / kEach; ++p) {
    Pack<T> pack;
    MORI_UNROLL
    for (uint32_t e = 0; e < kEach; ++e) from_float(values[p * kEach + e], pack.element[e]);
    if (aligned) {
      store_pack(to + p * kEach, pack);
    } else {
      MORI_UNROLL
      for (uint32_t e = 0; e < kEach; ++e) to[p * kEach + e] = pack.element[e];
    }
  }
}
/// As if it had been stored.
template <class T>
MORI_DEVICE float rounded(float value) {
  T narrow;
  from_float(value, narrow);
  return to_float(narrow);
}

/// What each warp has found, for all lanes: for the sum, and for the largest. Two in turn, so that one
/// sync() is enough.
struct WarpResults {
  float sum[2][kRowLanes / kWarpSize];
  float most[2][kRowLanes / kWarpSize];
};

/// value joined over the lanes of a block of kRowLanes, neighbours first. Callers: the block.
template <class Join>
MORI_DEVICE float join_lanes(const Block& group, float value, float (&of_warps)[kRowLanes / kWarpSize],
                             Join join) {
  for (uint32_t step = 1; step < kWarpSize; step *= 2) value = join(value, shuffle(value, lane_id() ^ step));
  if (lane_id() == 0) of_warps[warp_id()] = value;
  group.sync();
  float all[kRowLanes / kWarpSize];
  MORI_UNROLL
  for (uint32_t i = 0; i < kRowLanes / kWarpSize; ++i) all[i] = of_warps[i];
  MORI_UNROLL
  for (uint32_t step = 1; step < kRowLanes / kWarpSize; step *= 2) {
    MORI_UNROLL
    for (uint32_t i = 0; i + step < kRowLanes / kWarpSize; i += 2 * step)
      all[i] = join(all[i], all[i + step]);
  }
  return all[0];
}

MORI_DEVICE void store_codes_of_unit(uint8_t* to, const float (&values)[kUnit], float inverse, bool aligned) {
  float scaled[kUnit];
  MORI_UNROLL
  for (uint32_t e = 0; e < kUnit; ++e) scaled[e] = multiply(values[e], inverse);
  const uint32_t words[2] = {E4m3fn::pack(scaled), E4m3fn::pack(scaled + 4)};
  blocks::store_codes(reinterpret_cast<char*>(to), words, aligned, kUnit);
}

/// Callers: a block of kRowLanes. `from` gives units of the row. A lane reads again what it wrote itself.
/// `turn` differs from that of the call before by one.
template <class T, class From>
MORI_DEVICE void norm_row(const Block& group, const Normed<T>& to, uint64_t row, T* residual,
                          const From& from, uint32_t turn) {
  WarpResults& results = *reinterpret_cast<WarpResults*>(shared_memory<char>() + kGrain);
  const uint64_t n = to.hidden;
  float squares[kUnit];
  MORI_UNROLL
  for (uint32_t e = 0; e < kUnit; ++e) squares[e] = 0;
  MORI_NO_UNROLL
  for (uint64_t at = uint64_t(group.lane()) * kUnit; at < n; at += kPlaces) {
    float values[kUnit];
    from.unit(values, at);
    MORI_UNROLL
    for (uint32_t e = 0; e < kUnit; ++e) squares[e] += multiply(values[e], values[e]);
    store_unit(residual + at, values, to.aligned);
  }
  const float mine = ((squares[0] + squares[1]) + (squares[2] + squares[3])) +
                     ((squares[4] + squares[5]) + (squares[6] + squares[7]));
  const auto add = [](float a, float b) { return a + b; };
  const float inverse = to.inverse(join_lanes(group, mine, results.sum[turn & 1], add));

  const auto values_at = [&](uint64_t at, float(&values)[kUnit]) {
    float weight[kUnit];
    load_unit(values, residual + at, to.aligned);
    load_unit(weight, to.weight + at, to.aligned);
    MORI_UNROLL
    for (uint32_t e = 0; e < kUnit; ++e) {
      values[e] = rounded<T>(multiply(multiply(values[e], inverse), weight[e]));
    }
  };
  if (to.kind == CclCodes::none) {
    MORI_NO_UNROLL
    for (uint64_t at = uint64_t(group.lane()) * kUnit; at < n; at += kPlaces) {
      float values[kUnit];
      values_at(at, values);
      store_unit(to.rows + row * n + at, values, to.aligned);
    }
    return;
  }
  uint8_t* codes = to.codes + row * n;
  float* scales = to.scales + row * to.scales_of_row();
  const bool blocked = to.kind == CclCodes::per_block;
  float most = 0;
  MORI_NO_UNROLL
  for (uint64_t first = 0; first < n; first += kPlaces) {  // as often in every lane: they shuffle
    const uint64_t at = first + uint64_t(group.lane()) * kUnit;
    float values[kUnit];
    MORI_UNROLL
    for (uint32_t e = 0; e < kUnit; ++e) values[e] = 0;
    if (at < n) values_at(at, values);
    float amax = 0;
    MORI_UNROLL
    for (uint32_t e = 0; e < kUnit; ++e) amax = max_magnitude(amax, values[e]);
    most = amax > most ? amax : most;
    if (!blocked) continue;
    const BlockScale scale = scale_for(max_of_lanes<kScaleBlock / kUnit>(amax), E4m3fn::kLimit, false);
    if (at >= n) continue;
    if (at % kScaleBlock == 0) scales[at / kScaleBlock] = float_of(scale.stored);
    store_codes_of_unit(codes + at, values, scale.inverse, to.aligned);
  }
  if (blocked) return;
  const auto larger = [](float a, float b) { return b > a ? b : a; };
  const BlockScale scale =
      scale_for(join_lanes(group, most, results.most[turn & 1], larger), E4m3fn::kLimit, false);
  if (group.lane() == 0) scales[0] = float_of(scale.stored);
  MORI_NO_UNROLL
  for (uint64_t at = uint64_t(group.lane()) * kUnit; at < n; at += kPlaces) {
    float values[kUnit];
    values_at(at, values);
    store_codes_of_unit(codes + at, values, scale.inverse, to.aligned);
  }
}
#endif

}  // namespace ccl
}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori
