// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Combine's first half: rows return to their owners' combine buffers, a few at a time, each with a flag
// behind it. Rows of my own tokens stay where they are. The owners' rows go out in turn, so that each owner
// gets the rows of its first tokens first, from all ranks alike, and can begin to sum.
#pragma once
#include "src/ops/ep/ep_combine_sum.hpp"

namespace mori {
inline namespace MORI_TARGET_NAMESPACE {

/// Warps that make one unit together.
template <class Group>
MORI_DEVICE uint32_t warps_of(const Group& group) {
  return group.lanes() / kWarpSize;
}

/// Callers: the group, which is a warp or a block.
template <class Group>
MORI_DEVICE void copy_span(const Group& group, bool large, uint64_t to, uint64_t from, uint64_t bytes) {
  if (warps_of(group) == 1) return copy_row(large, global<void>(to), global<const void>(from), bytes);
  constexpr uint32_t kUnroll = 4;  // predicated, so that a lane waits for its loads once
  const vec16* s = global<const vec16>(from);
  vec16* d = global<vec16>(to);
  const uint64_t n = bytes / sizeof(vec16), lanes = group.lanes();
  MORI_NO_UNROLL
  for (uint64_t i = group.lane(); i < n; i += kUnroll * lanes) {
    vec16 v[kUnroll];
    MORI_UNROLL
    for (uint32_t u = 0; u < kUnroll; ++u) {
      if (i + u * lanes < n) v[u] = load_streaming(s + i + u * lanes);
    }
    MORI_UNROLL
    for (uint32_t u = 0; u < kUnroll; ++u) {
      if (i + u * lanes < n) store_streaming(d + i + u * lanes, v[u]);
    }
  }
}

/// The partials of rows that came as copies for several experts. Callers: the group.
template <class T, class Group>
MORI_DEVICE void send_partials(const EpCombineArgs& a, CombineTerm* terms, const Group& group, uint64_t to,
                               uint64_t row, uint64_t rows) {
  const uint32_t packs = a.hidden / Pack<T>::kElements;
  const uint32_t parts = warps_of(group), part = group.lane() / kWarpSize;
  for (uint64_t i = 0; i < rows; ++i) {
    const uint32_t copies = list_copies<T>(a, terms, row + i);
    sync_warp();
    sum_part<T>({terms, copies, copies, 0}, global<T>(to) + i * a.hidden,
                uint32_t(uint64_t(packs) * part / parts), uint32_t(uint64_t(packs) * (part + 1) / parts));
    sync_warp();  // the terms are written again
  }
}

/// Rows that return as they are. What the kernels take for Rows has these members.
template <class T>
struct WideRows {
  using Element = T;
  /// Elements that a lane sums at a time: in these a row is cut.
  static constexpr uint32_t kPiece = Pack<T>::kElements;
  /// Of a row in a combine buffer.
  MORI_DEVICE static uint64_t bytes(const EpCombineArgs& a) { return uint64_t(a.hidden) * sizeof(T); }
  /// Rows row..row + rows - 1 to a combine buffer. Callers: the group.
  template <class Group>
  MORI_DEVICE static void send(const EpCombineArgs& a, const CombineBlock& block, const Group& group,
                               uint64_t to, uint64_t row, uint64_t rows) {
    if (a.placement == EpPlacement::rank) {
      const uint64_t row_bytes = bytes(a);
      copy_span(group, a.large != 0, to, a.rows + row * row_bytes, rows * row_bytes);
      finish_large_copies();
    } else {
      send_partials<T>(a, block.warp_terms(a), group, to, row, rows);
    }
  }
  /// Pieces first..last - 1 of a token whose rows have come. Callers: the warp.
  MORI_DEVICE static void sum(const EpCombineArgs& a, const CombineItem& item) {
    sum_part<T>(item.sum, global<T>(a.out) + item.token * a.hidden, item.first, item.last);
  }
};

/// Returns unit `index`, `index + count`, ... of the rows of other ranks. Callers: the group.
template <class Rows, class Group>
MORI_DEVICE void return_rows(const EpCombineArgs& a, const CombineTurn& turn, const CombineBlock& block,
                             const Group& group, uint32_t index, uint32_t count) {
  const uint32_t ranks = a.world.world_size, others = ranks - 1, me = a.world.rank;
  const uint64_t row_bytes = Rows::bytes(a);
  uint64_t most = 0;
  for (uint32_t s = 0; s < ranks; ++s) {
    const uint64_t rows = block.begins[s + 1] - block.begins[s];
    if (s != me && rows > most) most = rows;
  }
  const uint64_t units = (most + a.unit - 1) / a.unit * others;
  for (uint64_t u = index; u < units; u += count) {
    const uint32_t owner = uint32_t((me + 1 + u % others) % ranks);
    const uint64_t first = u / others * a.unit, have = block.begins[owner + 1] - block.begins[owner];
    if (first >= have || (turn.active >> owner & 1u) == 0) continue;
    const uint64_t rows = have - first < a.unit ? have - first : a.unit, row = block.begins[owner] + first;
    const uint64_t to = block.owner_rows[owner] + first * row_bytes;
    Rows::send(a, block, group, to, row, rows);
    group.sync();
    uint64_t* flags = global<uint64_t>(block.owner_flags[owner]) + first;
    MORI_NO_UNROLL
    for (uint64_t i = group.lane(); i < rows; i += group.lanes())
      store_release<Scope::system>(flags + i, turn.epoch);
  }
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori
