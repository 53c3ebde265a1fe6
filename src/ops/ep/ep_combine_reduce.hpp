// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Combine's second half: the owner of a token sums its rows, as soon as those have come. Work is handed out
// in token order, which is the order in which rows come; a warp waits for the rows of its token alone.
#pragma once
#include "src/ops/ep/ep_combine_sum.hpp"

namespace mori {
inline namespace MORI_TARGET_NAMESPACE {

/// How tokens are cut so that every warp has something to do.
struct CombineCut {
  uint32_t packs;  ///< in a row
  uint32_t parts;  ///< of a row
  uint32_t each;   ///< packs of a part

  MORI_DEVICE CombineCut(const EpCombineArgs& a, uint32_t row_packs) : packs(row_packs) {
    const uint32_t most = (packs + kWarpSize - 1) / kWarpSize;
    parts = a.parts < most ? a.parts : most;
    each = (most + parts - 1) / parts * kWarpSize;
  }
};

/// Sum of the token's weights whose experts live on `rank`, in top-k order.
MORI_DEVICE float rank_weight(const EpCombineArgs& a, uint64_t token, uint32_t rank) {
  float sum = 0;
  for (uint32_t k = 0; k < a.topk; ++k) {
    const int64_t id = load_id(a.ids, a.id_bytes, token * a.topk + k);
    // The caller's ids, read again: they may have changed since dispatch checked them.
    if (id < 0 || id >= int64_t(a.num_experts)) continue;
    if (uint32_t(global<const int32_t>(a.expert_rank)[id]) == rank) {
      sum += global<const float>(a.weights)[token * a.topk + k];
    }
  }
  return sum;
}

/// The index-th lowest rank of a mask.
MORI_DEVICE uint32_t nth_rank(uint64_t mask, uint32_t index) {
  for (uint32_t i = 0; i < index; ++i) mask &= mask - 1;
  return first_bit(mask);
}

/// Lists what item `index` sums, without waiting for any of it. Callers: the warp.
template <class Rows>
MORI_DEVICE CombineItem list_terms(const EpCombineArgs& a, const CombineTurn& turn, const CombineBlock& block,
                                   const CombineCut& cut, uint64_t index) {
  using T = typename Rows::Element;
  CombineTerm* terms = block.warp_terms(a);
  const uint32_t me = a.world.rank, part = uint32_t(index % cut.parts);
  const uint64_t row_bytes = uint64_t(a.hidden) * sizeof(T), returned_bytes = Rows::bytes(a);
  CombineItem item{};
  item.token = index / cut.parts;
  item.first = part * cut.each;
  item.last = item.first + cut.each < cut.packs ? item.first + cut.each : cut.packs;
  const uint64_t routed = global<const uint64_t>(a.routing.masks)[item.token];
  item.mask = routed & turn.active;
  const uint32_t biased = a.bias != 0, own = bits_below(routed, me);
  const bool visits_me = (item.mask >> me & 1u) != 0, by_expert = a.placement != EpPlacement::rank;
  const uint64_t returned = global<const uint64_t>(a.world.bases)[me] + turn.rows;
  const uint32_t* positions = global<const uint32_t>(a.routing.positions) + item.token * a.fan;
  item.sum.terms = terms;
  item.sum.count = biased + count_bits(item.mask) - (visits_me && by_expert);
  item.sum.before = biased + bits_below(item.mask, me);
  sync_warp();  // the terms of the item before have been read
  if (biased != 0 && lane_id() == 0) terms[0] = {a.bias + item.token * row_bytes, 1.0f, 0};
  for (uint32_t i = lane_id(); i < count_bits(routed); i += kWarpSize) {
    const uint32_t rank = nth_rank(routed, i), position = positions[i];
    if ((turn.active >> rank & 1u) == 0 || (rank == me && by_expert)) continue;
    const uint32_t at = biased + bits_below(item.mask, rank) - (rank > me && visits_me && by_expert);
    const uint64_t own_row = block.begins[me] + position - *block.sent_before;
    terms[at] = {rank == me ? a.rows + own_row * row_bytes : returned + position * returned_bytes,
                 a.weights == 0 ? 1.0f : rank_weight(a, item.token, rank), position};
  }
  if (visits_me && by_expert) {
    const uint64_t own_row = block.begins[me] + positions[own] - *block.sent_before;
    item.sum.copies = list_copies<T>(a, terms + item.sum.count, own_row);
  }
  sync_warp();
  return item;
}

/// Waits for the rows of other ranks. False: the deadline has passed. Callers: the warp. Orders: acquire.
MORI_DEVICE bool await_rows(const EpCombineArgs& a, const CombineTurn& turn, const CombineItem& item) {
  const uint64_t* flags = peer_pointer<const uint64_t>(a.world, a.world.rank, turn.flags);
  const uint64_t others = item.mask & ~(uint64_t(1) << a.world.rank);
  const CombineTerm* terms = item.sum.terms + (a.bias != 0);
  const uint32_t rows = item.sum.count - (a.bias != 0);
  const uint64_t listed = a.placement == EpPlacement::rank ? item.mask : others;
  bool came = true;
  for (uint32_t i = lane_id(); i < rows && came; i += kWarpSize) {
    const uint32_t rank = nth_rank(listed, i);
    if (rank == a.world.rank) continue;
    came = wait_until(a.world, flags + terms[i].position, turn.epoch, Wait::combine_rows, rank);
  }
  return Warp::all(came);
}

/// The next share of this warp: its turn, or whoever comes first. Callers: the warp.
MORI_DEVICE uint64_t next_item(const EpCombineArgs& a, uint64_t epoch, uint64_t previous) {
  if (a.tickets == 0) return previous + grid_warps();
  uint64_t ticket = 0;
  if (lane_id() == 0)
    ticket =
        fetch_add_relaxed<Scope::device>(&global<EpLocal>(a.local)->combine_tickets[epoch & 1u], uint64_t(1));
  return shuffle(ticket, 0);
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori
