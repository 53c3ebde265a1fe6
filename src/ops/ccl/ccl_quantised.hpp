// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// all_reduce in two shots whose messages are narrow codes with a scale for every block: what a member puts,
// and what it makes of a part. docs/ccl.md, "Narrow wires".
#pragma once
#include "src/core/device/blocks_quantise.hpp"
#include "src/ops/ccl/ccl_arithmetic.hpp"
#include "src/ops/ccl/ccl_member.hpp"

namespace mori {
inline namespace MORI_TARGET_NAMESPACE {
namespace ccl {

using Fp8Wire = blocks::Codec<E4m3fn, blocks::Fp32Scale, 128>;
using Int8Wire = blocks::Codec<Int8, blocks::Fp32Scale, 128>;
using Int6Wire = blocks::Codec<Int6, blocks::Fp32Scale, 64>;
using Int4Wire = blocks::Codec<Int4, blocks::Fp32Scale, 64>;
inline constexpr uint64_t kPartElements = 128;  // parts are whole blocks of every wire

/// Where the scales of a part of n elements begin, behind its codes.
template <class C>
MORI_DEVICE uint64_t scales_at(uint64_t n) {
  return round_up(blocks::code_bytes<typename C::Format>(n), 16);
}

/// Adds a piece of a peer's codes.
template <class Format, uint32_t kElements>
MORI_DEVICE void add_coded(float (&sum)[kElements], const char* codes, uint32_t here, float scale) {
  uint32_t words[kElements * Format::kBits / 32];
  blocks::load_codes(words, codes, here == kElements, uint32_t(blocks::code_bytes<Format>(here)));
  MORI_UNROLL
  for (uint32_t e = 0; e < kElements; ++e) {
    sum[e] += multiply(Format::decode(code_at<Format>(words, e)), scale);
  }
}

/// A part in staging: codes, then scales.
template <class C>
struct Coded {
  char* codes;
  float* scales;

  MORI_DEVICE Coded(char* at, uint64_t n)
      : codes(at), scales(reinterpret_cast<float*>(at + scales_at<C>(n))) {}
};

/// to = the codes of the members' sum, in fp32: my own row as it is, the others' from their codes.
/// Callers: the block. Orders: nothing.
template <class C, class T>
MORI_DEVICE void requantise(const Member& m, const Coded<C>& to, const T* mine, uint64_t staged, uint64_t n) {
  using Format = typename C::Format;
  using Shape = blocks::BlockShape<Block, Format, C::kBlock>;
  constexpr uint32_t kElements = Shape::kElements, kWords = kElements * Format::kBits / 32;
  const CclArgs& a = m.a;
  const size_t count = blocks::scale_count<C>(n), at_once = m.group.lanes() / Shape::kLanes;
  const uint32_t place = m.group.lane() % Shape::kLanes;
  const bool aligned = blocks::is_aligned(mine);
  MORI_NO_UNROLL
  for (size_t first = 0; first < count; first += at_once) {  // as often in every lane: they shuffle
    const size_t block = first + m.group.lane() / Shape::kLanes;
    float sum[Shape::kHeld][kElements];
    float amax = 0;
    MORI_UNROLL
    for (uint32_t h = 0; h < Shape::kHeld; ++h) {
      const size_t at = block * C::kBlock + (place * Shape::kHeld + h) * kElements;
      const uint32_t here = blocks::elements_at<kElements>(at, n);
      MORI_UNROLL
      for (uint32_t e = 0; e < kElements; ++e) sum[h][e] = 0;
      MORI_NO_UNROLL
      for (uint32_t i = 0; i < a.members; ++i) {
        if (here == 0) continue;
        if (i == a.index) {
          float own[kElements];
          blocks::load_elements(own, mine + at, here, aligned);
          MORI_UNROLL
          for (uint32_t e = 0; e < kElements; ++e) sum[h][e] += own[e];
        } else {
          const char* codes = m.in(i) + staged;
          const float* scales = reinterpret_cast<const float*>(codes + scales_at<C>(n));
          add_coded<Format>(sum[h], codes + at * Format::kBits / 8, here, load_fresh(scales + block));
        }
      }
      MORI_UNROLL
      for (uint32_t e = 0; e < kElements; ++e) {
        sum[h][e] = finish(a.reduction, sum[h][e], a.members);
        amax = max_magnitude(amax, sum[h][e]);
      }
    }
    const BlockScale scale = scale_for(max_of_lanes<Shape::kLanes>(amax), Format::kLimit, false);
    if (place == 0 && block < count) to.scales[block] = blocks::Fp32Scale::stored(scale.stored);
    MORI_UNROLL
    for (uint32_t h = 0; h < Shape::kHeld; ++h) {
      const size_t at = block * C::kBlock + (place * Shape::kHeld + h) * kElements;
      const uint32_t here = blocks::elements_at<kElements>(at, n);
      MORI_UNROLL
      for (uint32_t e = 0; e < kElements; ++e) sum[h][e] = multiply(sum[h][e], scale.inverse);
      uint32_t words[kWords];
      pack_codes<Format>(words, sum[h]);
      blocks::store_codes(to.codes + at * Format::kBits / 8, words, here == kElements,
                          uint32_t(blocks::code_bytes<Format>(here)));
    }
  }
}

/// Every member, the owner of a part too, takes the sums from their codes: the same bits everywhere.
template <class C, class T>
MORI_DEVICE void reduce_quantised(const CclArgs& a) {
  Member m(a, shared_memory<uint32_t>());
  const T* source = global<const T>(a.source);
  T* dest = global<T>(a.dest);
  const uint64_t total = a.count * sizeof(T);
  struct Part {
    uint64_t begin, n;  // elements
  };
  // Member i's part of a step. Its codes are where the part itself would be: they are shorter.
  const auto part_of = [&](uint32_t i, uint64_t at, uint64_t piece) -> Part {
    const uint64_t here = clipped(at, piece, total) / sizeof(T);
    const uint64_t each = round_up((here + a.members - 1) / a.members, kPartElements);
    const uint64_t begin = smaller(i * each, here);
    return {begin, smaller((i + 1) * each, here) - begin};
  };
  m.each_step(
      total,
      a.chunk_bytes / (kPartElements * sizeof(T) * a.members) * (kPartElements * sizeof(T) * a.members),
      [&](uint64_t at, uint64_t piece) {
        MORI_NO_UNROLL
        for (uint32_t i = 1; i < a.members; ++i) {
          const Part p = part_of(m.behind(i), at, piece);
          const Coded<C> to(m.in(a.index) + p.begin * sizeof(T), p.n);
          blocks::quantise<C>(m.group, to.codes, to.scales, source + at / sizeof(T) + p.begin, p.n);
        }
      },
      [&](uint64_t at, uint64_t piece) {
        const Part p = part_of(a.index, at, piece);
        const uint64_t staged = p.begin * sizeof(T);
        // Nobody put my own part into staging: there is room for its sum.
        const Coded<C> to(m.in(a.index) + staged, p.n);
        requantise<C>(m, to, source + at / sizeof(T) + p.begin, staged, p.n);
        if (!m.meet(false)) return false;
        MORI_NO_UNROLL
        for (uint32_t i = 0; i < a.members; ++i) {
          const uint32_t from = m.behind(i);
          const Part theirs = part_of(from, at, piece);
          const Coded<C> sums(m.in(from) + theirs.begin * sizeof(T), theirs.n);
          blocks::dequantise<C>(m.group, dest + at / sizeof(T) + theirs.begin, sums.codes, sums.scales,
                                theirs.n);
        }
        return true;
      });
}

}  // namespace ccl
}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori
