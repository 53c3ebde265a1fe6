// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Collectives that sum: all_reduce, reduce_scatter, reduce, for one element type. docs/ccl.md.
#pragma once
#include "src/ops/ccl/ccl_arithmetic.hpp"
#include "src/ops/ccl/ccl_member.hpp"

namespace mori {
inline namespace MORI_TARGET_NAMESPACE {
namespace ccl {

/// By staging: all_reduce in one shot, reduce (the root alone takes), reduce_scatter (each member its part),
/// and all_reduce in two shots: each a part of every step, then the others' sums. Callers: the block.
template <class T>
MORI_DEVICE void reduce_staged(Member& m) {
  const CclArgs& a = m.a;
  const bool scatter = a.op == CclOp::reduce_scatter;
  const bool two_shot = a.op == CclOp::all_reduce && a.algorithm == CclAlgorithm::two_shot;
  const bool parted = scatter || two_shot;
  const bool takes = a.op != CclOp::reduce || a.index == a.root, puts = a.op != CclOp::reduce || !takes;
  const uint64_t total = a.count * sizeof(T);
  const uint64_t room = a.chunk_bytes / (scatter ? a.members : 1) / kGrain * kGrain;
  const char* source = global<const char>(a.source);
  char* dest = global<char>(a.dest);
  struct Place {
    uint64_t from, staged, bytes;
  };
  // Member i's part of a step, in source and in staging.
  const auto part_of = [&](uint32_t i, uint64_t at, uint64_t piece) -> Place {
    const uint64_t here = clipped(at, piece, total);
    const uint64_t each = round_up((here + a.members - 1) / a.members, kGrain);
    const uint64_t begin = two_shot ? smaller(i * each, here) : 0;
    const uint64_t end = two_shot ? smaller((i + 1) * each, here) : here;
    return {(scatter ? i * total : 0) + at + begin, scatter ? i * room : begin, end - begin};
  };
  m.each_step(
      total, room,
      [&](uint64_t at, uint64_t piece) {
        const uint32_t end = !puts || a.source_home != 0 ? 0 : parted ? a.members : 1;
        MORI_NO_UNROLL
        for (uint32_t i = parted ? 1 : 0; i < end; ++i) {  // nobody stages a part for itself
          const Place p = part_of(m.behind(i), at, piece);
          copy_shared(m.group, m.in(a.index) + p.staged, source + p.from, p.bytes);
        }
      },
      [&](uint64_t at, uint64_t piece) {
        const Place p = part_of(a.index, at, piece);
        const auto row = [&](uint32_t i) {
          return reinterpret_cast<const T*>(m.source_of(i, p.from, m.in(i) + p.staged));
        };
        const bool sums_stay = !two_shot || a.dest_home != 0;  // in dest, and need not be anywhere else
        T* kept = reinterpret_cast<T*>(dest + (two_shot ? p.from : at));
        T* to = sums_stay ? kept : reinterpret_cast<T*>(m.out(a.index));
        if (takes) {
          combine_rows(m.group, to, row, a.members, p.bytes / sizeof(T), a.reduction,
                       sums_stay ? nullptr : kept);
        }
        if (!two_shot) return true;
        if (!m.meet(false)) return false;
        MORI_NO_UNROLL
        for (uint32_t i = kCombinesTwice ? 1 : 0; i < a.members; ++i) {
          const uint32_t from = m.behind(i);
          if (from == a.index && a.dest_home != 0) continue;
          const Place theirs = part_of(from, at, piece);
          const char* there = m.dest_of(from, theirs.from, m.out(from));
          copy_shared<FreshLoads>(m.group, dest + theirs.from, there, theirs.bytes, total >= kLarge);
        }
        return true;
      },
      kGrain, two_shot);
}

/// Four bytes of the message, zeros behind its end.
MORI_DEVICE uint32_t word_of(const char* message, uint64_t at, uint64_t bytes) {
  uint32_t word = 0;
  for (uint32_t i = 0; i < 4 && at + i < bytes; ++i) word |= uint32_t(uint8_t(message[at + i])) << (8 * i);
  return word;
}

/// all_reduce by packets: four bytes and a tag to every member, no meeting. T is at most 4 bytes.
template <class T>
MORI_DEVICE void reduce_packets(const Member& m) {
  const CclArgs& a = m.a;
  constexpr uint32_t kElements = sizeof(uint32_t) / sizeof(T);
  struct Elements {
    T element[kElements];
  };
  const char* source = global<const char>(a.source);
  char* dest = global<char>(a.dest);
  const uint64_t bytes = a.count * sizeof(T);
  const uint64_t share = round_up((bytes + grid_blocks() - 1) / grid_blocks(), kGrain);
  const uint64_t begin_at = smaller(block_id() * share, bytes), end = smaller(begin_at + share, bytes);
  const bool words = ((a.source | a.dest) & 3u) == 0;
  uint64_t tag = load_relaxed<Scope::device>(m.counter(1));
  MORI_NO_UNROLL
  for (uint64_t base = begin_at; base < end; base += a.packet_words * 4) {
    tag += uint32_t(tag + 1) != 0 ? 1 : 3;  // 0 is what was never written; the two buffers take turns
    const uint64_t n = (smaller(a.packet_words * 4, end - base) + 3) / 4;
    const uint64_t half = (block_id() * 2 + (tag & 1)) * a.members;
    const auto packets = [&](uint32_t at, uint32_t of) {
      return m.of<uint64_t>(at, a.packets) + (half + of) * a.packet_words;
    };
    const auto mine = [&](uint64_t i) {
      const uint64_t at = base + i * 4;
      return words && at + 4 <= bytes ? *reinterpret_cast<const AnyWord32*>(source + at)
                                      : word_of(source, at, bytes);
    };
    MORI_NO_UNROLL
    for (uint64_t i = m.group.lane(); i < n; i += m.group.lanes()) {
      const uint32_t word = mine(i);
      for (uint32_t k = 1; k < a.members; ++k)
        store_tagged(packets(m.behind(k), a.index) + i, uint32_t(tag), word);
    }
    bool came = true;
    MORI_NO_UNROLL
    for (uint64_t i = m.group.lane(); i < n && came; i += m.group.lanes()) {
      Wide<T> all[kElements];
      for (uint32_t k = 0; k < a.members && came; ++k) {
        uint32_t word = 0;
        if (k == a.index) {
          word = mine(i);
        } else {
          came = wait_tagged(a.world, packets(a.index, k) + i, uint32_t(tag), Wait::packet, a.ranks[k], word);
        }
        const Elements row = __builtin_bit_cast(Elements, word);
        MORI_UNROLL
        for (uint32_t e = 0; e < kElements; ++e) {
          const Wide<T> value = widen(row.element[e]);
          all[e] = k == 0 ? begin(a.reduction, value) : join(a.reduction, all[e], value);
        }
      }
      if (!came) break;
      Elements sum;
      MORI_UNROLL
      for (uint32_t e = 0; e < kElements; ++e) narrow(finish(a.reduction, all[e], a.members), sum.element[e]);
      const uint64_t at = base + i * 4;
      const uint32_t word = __builtin_bit_cast(uint32_t, sum);
      if (words && at + 4 <= bytes) {
        *reinterpret_cast<AnyWord32*>(dest + at) = word;
      } else {
        for (uint32_t b = 0; b < 4 && at + b < bytes; ++b) dest[at + b] = char(word >> (8 * b));
      }
    }
    if (!m.group.all(came)) break;
  }
  m.finish(1, tag);
}

template <class T>
MORI_DEVICE void reduce(const CclArgs& a) {
  Member m(a, shared_memory<uint32_t>());
  if constexpr (sizeof(T) <= sizeof(uint32_t)) {
    if (a.op == CclOp::all_reduce && a.algorithm == CclAlgorithm::ll) return reduce_packets<T>(m);
  }
  reduce_staged<T>(m);
}

}  // namespace ccl
}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori
