// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Rows in narrow formats, with a scale for every block of elements or with none.
//
//   quantise<Codec>(group, codes, scales, from, n)    dequantise<Codec>(group, to, codes, scales, n)
//   encode<Format>(group, codes, from, n)             decode<Format>(group, to, codes, n)
//
// Callers: the group. Any n and any alignment of T and of the codes' bytes; 16-byte aligned rows are moved
// 16 bytes at a time. Memory is global. Orders: nothing; group.sync() before other lanes read the result.
// docs/blocks.md has the formats, the arithmetic, and what becomes of NaN and infinities.
#pragma once
#include "src/core/device/blocks_piece.hpp"

namespace mori {
inline namespace MORI_TARGET_NAMESPACE {
namespace blocks {

/// How scales are stored.
struct Fp32Scale {
  using Stored = float;
  static constexpr bool kE8m0 = false;
  MORI_DEVICE static Stored stored(uint32_t bits) { return float_of(bits); }
  MORI_DEVICE static float value(Stored scale) { return scale; }
};
struct E8m0Scale {
  using Stored = uint8_t;
  static constexpr bool kE8m0 = true;
  MORI_DEVICE static Stored stored(uint32_t byte) { return Stored(byte); }
  MORI_DEVICE static float value(Stored scale) { return from_e8m0(scale); }
};

/// A format whose elements share a scale, kBlock at a time; the last block may be shorter.
template <class FormatOfCodec, class ScaleOfCodec, uint32_t kBlockOfCodec>
struct Codec {
  static_assert(kBlockOfCodec == 16 || kBlockOfCodec == 32 || kBlockOfCodec == 64 || kBlockOfCodec == 128);
  using Format = FormatOfCodec;
  using Scale = ScaleOfCodec;
  static constexpr uint32_t kBlock = kBlockOfCodec;
};
/// Bytes of n codes, and scales of n elements.
template <class Format>
MORI_DEVICE constexpr size_t code_bytes(size_t n) {
  return (n * Format::kBits + 7) / 8;
}
template <class C>
MORI_DEVICE constexpr size_t scale_count(size_t n) {
  return (n + C::kBlock - 1) / C::kBlock;
}

/// Lanes that can shuffle with each other in this group: a lone thread has no others.
template <class Group>
inline constexpr uint32_t kNeighbours = kWarpSize;
template <>
inline constexpr uint32_t kNeighbours<Thread> = 1;

/// Elements whose codes are 16 bytes, or three words.
template <class Format>
inline constexpr uint32_t kMostOfPiece = 32 % Format::kBits == 0 ? 128 / Format::kBits : 16;

/// How a block is cut into pieces of at most 16 bytes of codes, and how those are dealt to lanes.
template <class Group, class Format, uint32_t kBlock>
struct BlockShape {
  static constexpr uint32_t kMost = kMostOfPiece<Format>;
  static constexpr uint32_t kElements = kMost < kBlock ? kMost : kBlock;  // of a piece
  static constexpr uint32_t kPieces = kBlock / kElements;
  static constexpr uint32_t kLanes = kPieces < kNeighbours<Group> ? kPieces : kNeighbours<Group>;
  static constexpr uint32_t kHeld = kPieces / kLanes;  // by one lane
};

/// The words of a piece; `whole`: all of them, to an aligned row.
template <uint32_t kWords>
MORI_DEVICE void store_codes(char* to, const uint32_t (&words)[kWords], bool whole, uint32_t bytes) {
  static_assert(kWords >= 2 && kWords <= 4);
  if (!whole) {
    MORI_UNROLL
    for (uint32_t i = 0; i < kWords * 4; ++i) {
      if (i < bytes) to[i] = char(words[i / 4] >> (i % 4 * 8));
    }
  } else if constexpr (kWords == 4) {
    store_streaming(reinterpret_cast<vec16*>(to), vec16{words[0], words[1], words[2], words[3]});
  } else if constexpr (kWords == 3) {
    MORI_UNROLL
    for (uint32_t i = 0; i < kWords; ++i) reinterpret_cast<AnyWord32*>(to)[i] = words[i];
  } else {
    *reinterpret_cast<AnyWord64*>(to) = uint64_t(words[1]) << 32 | words[0];
  }
}
template <uint32_t kWords>
MORI_DEVICE void load_codes(uint32_t (&words)[kWords], const char* from, bool whole, uint32_t bytes) {
  static_assert(kWords >= 2 && kWords <= 4);
  if (!whole) {
    MORI_UNROLL
    for (uint32_t i = 0; i < kWords; ++i) words[i] = 0;
    MORI_UNROLL
    for (uint32_t i = 0; i < kWords * 4; ++i) {
      if (i < bytes) words[i / 4] |= uint32_t(static_cast<AnyByte>(from[i])) << (i % 4 * 8);
    }
  } else if constexpr (kWords == 4) {
    struct Words {
      uint32_t word[4];
    };
    const Words all = __builtin_bit_cast(Words, load_streaming(reinterpret_cast<const vec16*>(from)));
    MORI_UNROLL
    for (uint32_t i = 0; i < 4; ++i) words[i] = all.word[i];
  } else if constexpr (kWords == 3) {
    MORI_UNROLL
    for (uint32_t i = 0; i < kWords; ++i) words[i] = reinterpret_cast<const AnyWord32*>(from)[i];
  } else {
    const uint64_t both = *reinterpret_cast<const AnyWord64*>(from);
    words[0] = uint32_t(both);
    words[1] = uint32_t(both >> 32);
  }
}

/// kElements of a row in fp32, of which `here` are there, zeros behind them.
template <uint32_t kElements, class T>
MORI_DEVICE void load_elements(float (&values)[kElements], const T* row, uint32_t here, bool aligned) {
  constexpr uint32_t kEach = Pack<T>::kElements;
  MORI_UNROLL
  for (uint32_t p = 0; p < kElements / kEach; ++p) {
    Pack<T> pack{};
    if (aligned && here == kElements) {
      pack = load_pack(row + p * kEach);
    } else {
      MORI_UNROLL
      for (uint32_t e = 0; e < kEach; ++e) {
        if (p * kEach + e < here) pack.element[e] = row[p * kEach + e];
      }
    }
    MORI_UNROLL
    for (uint32_t e = 0; e < kEach; ++e) values[p * kEach + e] = to_float(pack.element[e]);
  }
}

/// Writes code_bytes<Format>(n) bytes and scale_count<C>(n) scales.
template <class C, class Group, class T>
MORI_DEVICE void quantise(const Group& group, void* codes, typename C::Scale::Stored* scales, const T* from,
                          size_t n) {
  using Format = typename C::Format;
  using Shape = BlockShape<Group, Format, C::kBlock>;
  constexpr uint32_t kElements = Shape::kElements, kWords = kElements * Format::kBits / 32;
  const size_t count = scale_count<C>(n), at_once = group.lanes() / Shape::kLanes;
  const uint32_t place = group.lane() % Shape::kLanes;
  const bool aligned = is_aligned(from) && is_aligned(codes);
  MORI_NO_UNROLL
  for (size_t first = 0; first < count; first += at_once) {  // as often in every lane: they shuffle
    const size_t block = first + group.lane() / Shape::kLanes;
    float held[Shape::kHeld][kElements];
    float amax = 0;
    MORI_UNROLL
    for (uint32_t h = 0; h < Shape::kHeld; ++h) {
      const size_t at = block * C::kBlock + (place * Shape::kHeld + h) * kElements;
      load_elements(held[h], from + at, elements_at<kElements>(at, n), aligned);
      MORI_UNROLL
      for (uint32_t e = 0; e < kElements; ++e) amax = max_magnitude(amax, held[h][e]);
    }
    const BlockScale scale = scale_for(max_of_lanes<Shape::kLanes>(amax), Format::kLimit, C::Scale::kE8m0);
    if (place == 0 && block < count) scales[block] = C::Scale::stored(scale.stored);
    MORI_UNROLL
    for (uint32_t h = 0; h < Shape::kHeld; ++h) {
      const size_t at = block * C::kBlock + (place * Shape::kHeld + h) * kElements;
      const uint32_t here = elements_at<kElements>(at, n);
      float scaled[kElements];
      MORI_UNROLL
      for (uint32_t e = 0; e < kElements; ++e) scaled[e] = multiply(held[h][e], scale.inverse);
      uint32_t words[kWords];
      pack_codes<Format>(words, scaled);
      store_codes(static_cast<char*>(codes) + at * Format::kBits / 8, words, here == kElements && aligned,
                  uint32_t(code_bytes<Format>(here)));
    }
  }
}

/// Elements as format codes, unscaled.
template <class Format, class Group, class T>
MORI_DEVICE void encode(const Group& group, void* codes, const T* from, size_t n) {
  constexpr uint32_t kElements = kMostOfPiece<Format>, kWords = kElements * Format::kBits / 32;
  const bool aligned = is_aligned(from) && is_aligned(codes);
  MORI_NO_UNROLL
  for (size_t at = size_t(group.lane()) * kElements; at < n; at += size_t(group.lanes()) * kElements) {
    const uint32_t here = elements_at<kElements>(at, n);
    float values[kElements];
    load_elements(values, from + at, here, aligned);
    uint32_t words[kWords];
    pack_codes<Format>(words, values);
    store_codes(static_cast<char*>(codes) + at * Format::kBits / 8, words, here == kElements && aligned,
                uint32_t(code_bytes<Format>(here)));
  }
}

/// scale(element) of the piece that begins there.
template <class Format, uint32_t kElements, class Group, class T, class ScaleOf>
MORI_DEVICE void decode_pieces(const Group& group, T* to, const void* codes, size_t n, ScaleOf scale_of) {
  constexpr uint32_t kWords = kElements * Format::kBits / 32;
  const bool aligned = is_aligned(to) && is_aligned(codes);
  MORI_NO_UNROLL
  for (size_t at = size_t(group.lane()) * kElements; at < n; at += size_t(group.lanes()) * kElements) {
    const uint32_t here = elements_at<kElements>(at, n);
    const bool whole = here == kElements && aligned;
    uint32_t words[kWords];
    load_codes(words, static_cast<const char*>(codes) + at * Format::kBits / 8, whole,
               uint32_t(code_bytes<Format>(here)));
    const float scale = scale_of(at);
    Piece<T, kElements> piece;
    MORI_UNROLL
    for (uint32_t i = 0; i < kElements; ++i) {
      from_float(multiply(Format::decode(code_at<Format>(words, i)), scale),
                 piece.packs[i / piece.kEach].element[i % piece.kEach]);
    }
    if (whole) {
      piece.store(to + at);
    } else {
      piece.store_some(to + at, here);
    }
  }
}

/// code * scale in fp32, rounded once to T.
template <class C, class Group, class T>
MORI_DEVICE void dequantise(const Group& group, T* to, const void* codes,
                            const typename C::Scale::Stored* scales, size_t n) {
  using Shape = BlockShape<Group, typename C::Format, C::kBlock>;
  decode_pieces<typename C::Format, Shape::kElements>(
      group, to, codes, n, [=](size_t at) { return C::Scale::value(scales[at / C::kBlock]); });
}
template <class Format, class Group, class T>
MORI_DEVICE void decode(const Group& group, T* to, const void* codes, size_t n) {
  decode_pieces<Format, kMostOfPiece<Format>>(group, to, codes, n, [](size_t) { return 1.0f; });
}

}  // namespace blocks
}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori
