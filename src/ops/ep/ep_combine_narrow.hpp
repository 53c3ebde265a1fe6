// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Combine whose rows return as e4m3fn (docs/ep.md, "Narrow rows"): half the bytes on the link. A row in the
// combine buffer is hidden codes, then, with EpWire::fp8_block, an fp32 scale for each 128 elements, up to a
// multiple of 16 bytes. Rows of a rank's own tokens stay as they are. Arithmetic as in
// python/mori/ep/reference: quantize on the way out, code times scale rounded to fp32 on the way in.
#pragma once
#include "src/core/device/blocks_piece.hpp"
#include "src/ops/ep/ep_combine_send.hpp"

namespace mori {
inline namespace MORI_TARGET_NAMESPACE {

template <class T>
struct NarrowRows {
  using Element = T;
  static constexpr uint32_t kPiece = 16;  ///< elements: 16 bytes of codes
  static constexpr uint32_t kEach = Pack<T>::kElements, kPacks = kPiece / kEach;
  static constexpr uint32_t kBlockPieces = 8;  ///< that share a scale
  // How a block is shared between lanes; on the fast CPU target one lane holds all of it.
  static constexpr uint32_t kLanes = kBlockPieces < kWarpSize ? kBlockPieces : kWarpSize;
  static constexpr uint32_t kHeld = kBlockPieces / kLanes;
  static constexpr uint32_t kAtOnce = kWarpSize / kLanes;  ///< blocks of a warp

  MORI_DEVICE static bool scaled(const EpCombineArgs& a) { return a.wire == EpWire::fp8_block; }
  MORI_DEVICE static uint32_t blocks(const EpCombineArgs& a) { return (a.hidden + 127) / 128; }
  MORI_DEVICE static uint64_t bytes(const EpCombineArgs& a) {
    return (uint64_t(a.hidden) + (scaled(a) ? 4 * blocks(a) : 0) + 15) / 16 * 16;
  }

  template <class Group>
  MORI_DEVICE static void send(const EpCombineArgs& a, const CombineBlock& block, const Group& group,
                               uint64_t to, uint64_t row, uint64_t rows) {
    CombineTerm* terms = block.warp_terms(a);
    const uint64_t row_bytes = bytes(a);
    const uint32_t parts = warps_of(group), part = group.lane() / kWarpSize, count = blocks(a);
    MORI_NO_UNROLL
    for (uint64_t i = 0; i < rows; ++i) {
      uint32_t copies = 1;
      if (a.placement != EpPlacement::rank) {
        copies = list_copies<T>(a, terms, row + i);
      } else if (lane_id() == 0) {
        terms[0] = {a.rows + (row + i) * a.hidden * sizeof(T), 1.0f, 0};
      }
      sync_warp();
      MORI_NO_UNROLL
      for (uint32_t b = part * kAtOnce; b < count; b += parts * kAtOnce)
        send_blocks(a, terms, copies, to + i * row_bytes, b, count);
      sync_warp();  // the terms are written again
    }
  }

  /// Blocks first..first + kAtOnce - 1 of the sum of a list. Callers: the warp.
  MORI_DEVICE static void send_blocks(const EpCombineArgs& a, const CombineTerm* terms, uint32_t copies,
                                      uint64_t to, uint32_t first, uint32_t count) {
    const uint32_t begin = (first + lane_id() / kLanes) * kBlockPieces + lane_id() % kLanes * kHeld;
    const uint32_t pieces = a.hidden / kPiece;
    float values[kHeld][kPacks][kEach];
    float amax = 0;
    MORI_UNROLL
    for (uint32_t h = 0; h < kHeld; ++h) {
      if (begin + h < pieces) {
        partial(terms, copies, begin + h, values[h]);
        amax = largest(amax, values[h]);
      }
    }
    const BlockScale scale = scale_for(max_of_lanes<kLanes>(amax), E4m3fn::kLimit, false);
    const float inverse = scaled(a) ? scale.inverse : 1.0f;
    MORI_UNROLL
    for (uint32_t h = 0; h < kHeld; ++h) {
      if (begin + h < pieces) store_streaming(global<vec16>(to) + begin + h, codes(values[h], inverse));
    }
    // Scales to consecutive lanes, so that they leave in one store.
    const uint32_t stored = shuffle(scale.stored, lane_id() % kAtOnce * kLanes);
    if (scaled(a) && lane_id() < kAtOnce && first + lane_id() < count)
      global<uint32_t>(to + a.hidden)[first + lane_id()] = stored;
  }

  MORI_DEVICE static float largest(float most, const float (&values)[kPacks][kEach]) {
    MORI_UNROLL
    for (uint32_t i = 0; i < kPiece; ++i) most = max_magnitude(most, values[i / kEach][i % kEach]);
    return most;
  }
  MORI_DEVICE static vec16 codes(const float (&values)[kPacks][kEach], float inverse) {
    uint32_t words[4];
    MORI_UNROLL
    for (uint32_t w = 0; w < 4; ++w) {
      float v[4];
      MORI_UNROLL
      for (uint32_t i = 0; i < 4; ++i)
        v[i] = multiply(values[(4 * w + i) / kEach][(4 * w + i) % kEach], inverse);
      words[w] = E4m3fn::pack(v);
    }
    return vec16{words[0], words[1], words[2], words[3]};
  }

  /// What a rank returns, of one piece: the row, or the sum of its copies, rounded to T.
  MORI_DEVICE static void partial(const CombineTerm* terms, uint32_t copies, uint32_t index,
                                  float (&values)[kPacks][kEach]) {
    MORI_UNROLL
    for (uint32_t i = 0; i < kPiece; ++i) values[i / kEach][i % kEach] = 0;
    add_all_rows<kPacks, T>(values, terms, copies, index * kPacks, 1);
    MORI_UNROLL
    for (uint32_t i = 0; i < kPiece; ++i) {
      T rounded;
      from_float(values[i / kEach][i % kEach], rounded);
      values[i / kEach][i % kEach] = to_float(rounded);
    }
  }

  MORI_DEVICE static void sum(const EpCombineArgs& a, const CombineItem& item) {
    MORI_NO_UNROLL
    for (uint32_t i = item.first + lane_id(); i < item.last; i += kWarpSize) sum_piece(a, item, i);
  }

  MORI_DEVICE static void sum_piece(const EpCombineArgs& a, const CombineItem& item, uint32_t index) {
    const CombineSum& s = item.sum;
    const bool own_row =
        a.placement == EpPlacement::rank && (item.mask >> a.world.rank & 1u) != 0;  // at terms[before]
    float sum[kPacks][kEach] = {};
    const uint32_t biased = a.bias != 0;
    if (biased != 0) add_rows<1, kPacks, T>(sum, s.terms, index * kPacks, 1);
    MORI_NO_UNROLL
    for (uint32_t i = biased; i < s.before; ++i) add_narrow(a, sum, s.terms[i], index);
    if (own_row) add_rows<1, kPacks, T>(sum, s.terms + s.before, index * kPacks, 1);
    if (s.copies != 0) {
      float mine[kPacks][kEach];
      partial(s.terms + s.count, s.copies, index, mine);
      MORI_UNROLL
      for (uint32_t i = 0; i < kPiece; ++i) sum[i / kEach][i % kEach] += mine[i / kEach][i % kEach];
    }
    MORI_NO_UNROLL
    for (uint32_t i = s.before + own_row; i < s.count; ++i) add_narrow(a, sum, s.terms[i], index);
    T* out = global<T>(a.out) + item.token * a.hidden + uint64_t(index) * kPiece;
    MORI_UNROLL
    for (uint32_t p = 0; p < kPacks; ++p) {
      Pack<T> rounded;
      MORI_UNROLL
      for (uint32_t e = 0; e < kEach; ++e) from_float(sum[p][e], rounded.element[e]);
      store_pack(out + p * kEach, rounded);
    }
  }

  /// One piece of a row that came back.
  MORI_DEVICE static void add_narrow(const EpCombineArgs& a, float (&sum)[kPacks][kEach],
                                     const CombineTerm& term, uint32_t index) {
    const vec16 codes = load_streaming(global<const vec16>(term.address) + index);
    const float scale = scaled(a) ? global<const float>(term.address + a.hidden)[index / kBlockPieces] : 1.0f;
    const uint32_t words[4] = {codes.x, codes.y, codes.z, codes.w};
    MORI_UNROLL
    for (uint32_t i = 0; i < kPiece; ++i) {
      const float value = multiply(E4m3fn::decode(words[i / 4] >> (8 * (i % 4))), scale);
      sum[i / kEach][i % kEach] += multiply(term.weight, value);
    }
  }
};

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori
