// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Payloads that dispatch narrows on their way: a lane reads consecutive elements of a token, the lanes of a
// group find its largest magnitude, and each writes 16 bytes to every destination. Arithmetic as in
// python/mori/ep/reference: amax at least 2^-100, scale = amax / limit, element * (limit / amax), all in
// fp32.
#pragma once
#include "src/core/device/blocks_piece.hpp"
#include "src/ops/ep/ep_dispatch_send.hpp"

namespace mori {
namespace {
inline namespace MORI_TARGET_NAMESPACE {

MORI_DEVICE BlockScale scale_of(const EpConvert& c, float amax) {
  const float limit = c.format == EpFormat::e2m1     ? E2m1::kLimit
                      : c.format == EpFormat::e4m3fn ? E4m3fn::kLimit
                                                     : E4m3fnuz::kLimit;
  return scale_for(amax, limit, c.scale != EpScale::fp32);
}

/// 16 bytes of codes.
template <class T, uint32_t kElements>
MORI_DEVICE vec16 narrow(const Piece<T, kElements>& piece, EpFormat format, float inverse) {
  uint32_t words[4];
  piece.template narrow<128 / kElements>(inverse, words, [=](const float* v) {
    if constexpr (kElements == 32) {
      return E2m1::pack(v);
    } else {
      return format == EpFormat::e4m3fn ? E4m3fn::pack(v) : E4m3fnuz::pack(v);
    }
  });
  return vec16{words[0], words[1], words[2], words[3]};
}

/// How a group is shared between lanes. On the fast CPU target one lane holds all its pieces.
template <class T, uint32_t kElements>
struct GroupShape {
  static constexpr uint32_t kPieces = kElements == 32 ? 1 : 8;  // of a group: 32 elements of e2m1, 128 of fp8
  static constexpr uint32_t kLanes = kPieces < kWarpSize ? kPieces : kWarpSize;
  static constexpr uint32_t kHeld = kPieces / kLanes;      // by one lane
  static constexpr uint32_t kAtOnce = kWarpSize / kLanes;  // groups of a warp
  // Rounds whose loads are in flight together. Two of fp32 are too many registers for a wave of 64.
  static constexpr uint32_t kAhead = kLanes < 2 || (kWarpSize == 64 && sizeof(T) == 4) ? 1 : 2;
};

MORI_DEVICE void store_scale(const EpDispatchArgs& a, uint64_t row, uint32_t column, uint32_t stored) {
  const uint64_t at = row + uint64_t(column) * a.scale.column_bytes;
  if (a.convert.scale == EpScale::fp32) {
    *global<uint32_t>(at) = stored;
  } else {
    *global<uint8_t>(at) = uint8_t(stored);
  }
}

/// Groups [begin, end) of batch token t to every destination. With kWhole all are scaled by `whole`.
/// Callers: the warp.
template <bool kByExpert, bool kWhole, class T, uint32_t kElements>
MORI_DEVICE void send_groups(const EpDispatchArgs& a, const DispatchBlock& block, uint32_t t, const T* from,
                             uint32_t begin, uint32_t end, BlockScale whole) {
  using Shape = GroupShape<T, kElements>;
  constexpr uint32_t kRound = Shape::kAtOnce, kAhead = Shape::kAhead, kHeld = Shape::kHeld;
  const uint32_t pieces = (a.convert.hidden + kElements - 1) / kElements;
  const uint32_t place = lane_id() % Shape::kLanes;
  MORI_NO_UNROLL
  for (uint32_t first = begin; first < end; first += kRound * kAhead) {
    Piece<T, kElements> piece[kAhead][kHeld];
    vec16 narrowed[kAhead][kHeld];
    uint32_t stored[kAhead];
    auto piece_index = [&](uint32_t u, uint32_t h) {
      return (first + u * kRound + lane_id() / Shape::kLanes) * Shape::kPieces + place * kHeld + h;
    };
    const uint32_t last = end * Shape::kPieces < pieces ? end * Shape::kPieces : pieces;
    MORI_UNROLL
    for (uint32_t u = 0; u < kAhead; ++u) {
      MORI_UNROLL
      for (uint32_t h = 0; h < kHeld; ++h) {
        if (piece_index(u, h) < last) piece[u][h].load(from + uint64_t(piece_index(u, h)) * kElements);
      }
    }
    MORI_UNROLL
    for (uint32_t u = 0; u < kAhead; ++u) {
      float amax = 0;
      MORI_UNROLL
      for (uint32_t h = 0; h < kHeld; ++h) {
        if (!kWhole && piece_index(u, h) < last) {
          const float mine = piece[u][h].amax();
          amax = mine > amax ? mine : amax;
        }
      }
      const BlockScale scale = kWhole ? whole : scale_of(a.convert, max_of_lanes<Shape::kLanes>(amax));
      stored[u] = scale.stored;
      MORI_UNROLL
      for (uint32_t h = 0; h < kHeld; ++h) {
        if (piece_index(u, h) < last) narrowed[u][h] = narrow(piece[u][h], a.convert.format, scale.inverse);
      }
    }
    // Scales of the whole round to consecutive lanes, so that they leave in one store.
    uint32_t my_scale = 0;
    MORI_UNROLL
    for (uint32_t u = 0; u < kAhead; ++u) {
      const uint32_t value = shuffle(stored[u], lane_id() % kRound * Shape::kLanes);
      if (lane_id() / kRound == u) my_scale = value;
    }
    const uint32_t my_group = first + lane_id();
    for_destinations<kByExpert>(a, block, t, [&](uint32_t rank, uint32_t slot) {
      const uint64_t buffer = block.destination[rank];
      vec16* row = global<vec16>(buffer + a.receive.rows + slot * a.row_bytes);
      MORI_UNROLL
      for (uint32_t u = 0; u < kAhead; ++u) {
        MORI_UNROLL
        for (uint32_t h = 0; h < kHeld; ++h) {
          if (piece_index(u, h) < last) store_streaming(row + piece_index(u, h), narrowed[u][h]);
        }
      }
      if (!kWhole && lane_id() < kRound * kAhead && my_group < end)
        store_scale(a, scale_address(a, buffer, slot), my_group, my_scale);
    });
  }
}

/// The scale of a whole token, which is then read again. Callers: the warp.
template <class T>
MORI_DEVICE BlockScale scale_of_token(const EpDispatchArgs& a, const T* from) {
  float amax = 0;
  for (uint32_t i = lane_id() * 16; i < a.convert.hidden; i += kWarpSize * 16) {
    Piece<T, 16> piece;
    piece.load(from + i);
    const float mine = piece.amax();
    amax = mine > amax ? mine : amax;
  }
  return scale_of(a.convert, max_of_lanes<kWarpSize>(amax));
}

/// Payloads of type T, narrowed; the interface of AsIs.
template <class T>
struct Narrowed {
  template <bool kByExpert>
  MORI_DEVICE static void send(const EpDispatchArgs& a, const DispatchBlock& block, Batch batch, uint32_t t,
                               uint32_t part, uint32_t parts) {
    const EpConvert& c = a.convert;
    const T* from = global<const T>(a.x) + uint64_t(batch.first + t) * c.hidden;
    if (c.format == EpFormat::e2m1) {
      const uint32_t groups = c.hidden / 32;
      return send_groups<kByExpert, false, T, 32>(a, block, t, from, groups * part / parts,
                                                  groups * (part + 1) / parts, BlockScale{});
    }
    const uint32_t groups = (c.hidden + 127) / 128;
    const uint32_t begin = groups * part / parts, end = groups * (part + 1) / parts;
    if (c.group == 128)
      return send_groups<kByExpert, false, T, 16>(a, block, t, from, begin, end, BlockScale{});
    const BlockScale whole = scale_of_token(a, from);
    send_groups<kByExpert, true, T, 16>(a, block, t, from, begin, end, whole);
    if (part != 0 || lane_id() != 0) return;
    for_destinations<kByExpert>(a, block, t, [&](uint32_t rank, uint32_t slot) {
      store_scale(a, scale_address(a, block.destination[rank], slot), 0, whole.stored);
    });
  }
  MORI_DEVICE static uint32_t most_parts(const EpDispatchArgs& a) {
    const uint32_t at_once = a.convert.format == EpFormat::e2m1 ? 32 * GroupShape<T, 32>::kAtOnce
                                                                : 128 * GroupShape<T, 16>::kAtOnce;
    const uint32_t parts = a.convert.hidden / at_once;
    return parts == 0 ? 1 : parts;
  }
};

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace
}  // namespace mori
