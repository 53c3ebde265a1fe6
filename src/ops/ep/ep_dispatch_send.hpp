// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Dispatch, phases 4 and 5 of docs/ep.md. A sender block takes its tokens in batches: it gives each its rows
// and slots, then writes payloads and what goes with them to where they stay. Behind the last batch of a
// chunk it raises the chunk's flag at every rank.
#pragma once
#include "src/ops/ep/ep_dispatch_plan.hpp"

namespace mori {
namespace {
inline namespace MORI_TARGET_NAMESPACE {

/// Where a later batch's tokens go; count() has done it for the first. Callers: the block; barriers around
/// it.
template <bool kByExpert>
MORI_DEVICE void load_batch(const EpDispatchArgs& a, const DispatchBlock& block, Batch batch) {
  const uint64_t active = active_ranks(a);
  for (uint32_t t = block_lane(); t < batch.size; t += block_lanes()) {
    for (uint32_t k = 0; k < a.topk; ++k) block.owners[t * a.topk + k] = kNobody;
    uint64_t mask = 0;
    for (uint32_t k = 0; k < a.topk; k += kIdsAtOnce) {
      int64_t ids[kIdsAtOnce];
      load_ids(a, batch.first + t, k, ids);
      mask |= for_selections(a, block, active, k, ids, [&](uint32_t at, uint32_t id, uint32_t rank) {
        note_selection<kByExpert>(a, block, t, at, id, rank);
      });
    }
    block.masks[t] = mask;
  }
}

/// Rows at every destination, in token order: a rank is one warp's. Callers: the block.
MORI_DEVICE void assign_rows(const EpDispatchArgs& a, const DispatchBlock& block, Batch batch) {
  uint32_t* positions = global<uint32_t>(a.routing.positions) + uint64_t(batch.first) * a.fan;
  for (uint32_t rank = warp_id(); rank < a.world.world_size; rank += warps_per_block()) {
    uint32_t row = block.cursor[rank];
    const uint32_t to_position = block.sent_before[rank] - block.first_row[rank];
    for (uint32_t start = 0; start < batch.size; start += kWarpSize) {
      const uint32_t t = start + lane_id();
      const uint64_t mask = t < batch.size ? block.masks[t] : 0;
      const bool goes = (mask >> rank & 1) != 0;
      const uint64_t votes = ballot(goes);
      if (goes) {
        const uint32_t mine = row + bits_below(votes, lane_id()), at = t * a.fan + bits_below(mask, rank);
        block.rows[at] = mine;
        positions[at] = mine + to_position;
      }
      row += count_bits(votes);
    }
    sync_warp();  // all lanes have read the cursor
    if (lane_id() == 0) block.cursor[rank] = row;
  }
}

/// Slots of the selections of batch tokens [begin, end), in token order. Callers: the warp.
MORI_DEVICE void assign_slots(const EpDispatchArgs& a, const DispatchBlock& block, uint32_t begin,
                              uint32_t end) {
  for (uint32_t t = begin; t < end; ++t) {
    for (uint32_t k = lane_id(); k < a.topk; k += kWarpSize) {
      const uint32_t at = t * a.topk + k;
      if (block.owners[at] == kNobody) continue;
      const uint32_t key = block.slots[at];  // a token's experts differ, so lanes do not meet
      block.slots[at] = block.key_cursor[key]++;
    }
    sync_warp();
  }
}

/// Where the payload of batch token t goes: visit(rank, slot), once for each destination. In the expert
/// layouts that is the slot of the first selection there; the receiver copies from it to the others.
template <bool kByExpert, class Visit>
MORI_DEVICE void for_destinations(const EpDispatchArgs& a, const DispatchBlock& block, uint32_t t,
                                  Visit visit) {
  uint32_t index = 0;
  for (uint64_t left = block.masks[t]; left != 0; left &= left - 1, ++index) {
    const uint32_t rank = first_bit(left);
    uint32_t slot;
    if constexpr (kByExpert) {
      uint32_t k = t * a.topk;
      while (block.owners[k] != rank) ++k;
      slot = block.slots[k];
    } else {
      slot = block.rows[t * a.fan + index];
    }
    visit(rank, slot);
  }
}

/// Everything but payload and scales, for batch tokens [begin, end) that go to one rank. Their rows follow
/// each other, so what the lanes write is contiguous. Callers: the warp.
template <bool kByExpert>
MORI_DEVICE void send_records(const EpDispatchArgs& a, const DispatchBlock& block, Batch batch,
                              uint32_t begin, uint32_t end, uint32_t rank) {
  const uint64_t buffer = block.destination[rank], topk = a.topk;
  uint32_t t = begin + lane_id() / a.topk, k = lane_id() % a.topk;
  const uint32_t tokens_on = kWarpSize / a.topk, on = kWarpSize % a.topk;
  while (t < end) {
    const uint64_t mask = block.masks[t];
    if ((mask >> rank & 1) != 0) {
      const uint64_t row = block.rows[t * a.fan + bits_below(mask, rank)];
      const uint64_t token = batch.first + t, here = token * topk + k, there = row * topk + k;
      const bool mine = block.owners[t * a.topk + k] == rank;
      const int64_t id = mine ? load_id(a.ids, a.id_bytes, here) : -1;
      if (a.id_bytes == 4) {
        global<int32_t>(buffer + a.receive.ids)[there] = int32_t(id);
      } else {
        global<int64_t>(buffer + a.receive.ids)[there] = id;
      }
      if (a.weights != 0) {
        global<float>(buffer + a.receive.weights)[there] = global<const float>(a.weights)[here];
      }
      if constexpr (kByExpert) {
        global<int32_t>(buffer + a.receive.routes)[there] = mine ? int32_t(block.slots[t * a.topk + k]) : -1;
      }
      if (k == 0) {
        global<int64_t>(buffer + a.receive.sources)[row] = int64_t(uint64_t(a.world.rank) << 32 | token);
      }
    }
    t += tokens_on;
    k += on;
    if (k >= a.topk) {
      k -= a.topk;
      ++t;
    }
  }
}

/// Selections of the batch, added to the load of their experts. Callers: the block.
MORI_DEVICE void add_load(const EpDispatchArgs& a, const DispatchBlock& block, Batch batch) {
  uint64_t* load = global<uint64_t>(a.load);
  for (uint32_t i = block_lane(); i < batch.size * a.topk; i += block_lanes()) {
    if (block.owners[i] == kNobody) continue;
    const int64_t id = load_id(a.ids, a.id_bytes, uint64_t(batch.first) * a.topk + i);
    fetch_add_relaxed<Scope::device>(load + id, uint64_t(1));
  }
}

/// Scales of one slot, wherever the layout puts them.
MORI_DEVICE uint64_t scale_address(const EpDispatchArgs& a, uint64_t buffer, uint32_t slot) {
  return buffer + a.receive.scales + slot / a.scale.block * a.scale.block_bytes +
         uint64_t(slot % a.scale.block) * a.scale.row_bytes;
}

/// Copies a row of scales, whose size need not be a multiple of 16. Callers: the warp.
MORI_DEVICE void copy_scales(uint64_t to, uint64_t from, uint32_t bytes) {
  if (((to | from | bytes) & 15u) == 0) return warp_copy(global<void>(to), global<const void>(from), bytes);
  if (((to | from | bytes) & 3u) == 0) {
    for (uint32_t i = lane_id(); i < bytes / 4; i += kWarpSize)
      global<AnyWord32>(to)[i] = global<const AnyWord32>(from)[i];
    return;
  }
  for (uint32_t i = lane_id(); i < bytes; i += kWarpSize)
    global<uint8_t>(to)[i] = global<const uint8_t>(from)[i];
}

/// Payloads that are sent as they come, with the scales that come with them.
struct AsIs {
  /// Part `part` of `parts` of batch token t to every destination. Callers: the warp.
  template <bool kByExpert>
  MORI_DEVICE static void send(const EpDispatchArgs& a, const DispatchBlock& block, Batch batch, uint32_t t,
                               uint32_t part, uint32_t parts) {
    const uint64_t token = batch.first + t;
    const uint64_t packs = a.row_bytes / sizeof(vec16);
    const uint64_t begin = packs * part / parts * sizeof(vec16),
                   end = packs * (part + 1) / parts * sizeof(vec16);
    const char* from = global<const char>(a.x) + token * a.row_bytes + begin;
    // A row of scales is loaded before the payload and stored behind it, where the lanes can hold it.
    const uint64_t scales = a.scales + token * a.scale.bytes;
    const bool with_scales = a.scales != 0 && part == 0;
    const bool held = with_scales && ((scales | a.scale.bytes) & 15u) == 0 &&
                      a.scale.bytes <= kWarpSize * sizeof(vec16) && kWarpSize > 1;
    const bool holds = held && lane_id() < a.scale.bytes / sizeof(vec16);
    vec16 scale{};
    if (holds) scale = load_streaming(global<const vec16>(scales) + lane_id());
    warp_copy_to_each(a.large != 0, from, end - begin, [&](auto store) {
      for_destinations<kByExpert>(a, block, t, [&](uint32_t rank, uint32_t slot) {
        store(global<char>(block.destination[rank] + a.receive.rows) + slot * a.row_bytes + begin);
      });
    });
    if (!with_scales) return;
    for_destinations<kByExpert>(a, block, t, [&](uint32_t rank, uint32_t slot) {
      const uint64_t to = block.destination[rank] + a.receive.scales + uint64_t(slot) * a.scale.bytes;
      if (!held) return copy_scales(to, scales, a.scale.bytes);
      if (holds) store_streaming(global<vec16>(to) + lane_id(), scale);
    });
  }
  /// Into how many parts a row may be divided.
  MORI_DEVICE static uint32_t most_parts(const EpDispatchArgs& a) {
    const uint32_t parts = uint32_t(a.row_bytes / (sizeof(vec16) * kWarpSize));
    return parts == 0 ? 1 : parts;
  }
};

/// Batch tokens [begin, end), whose places are known. Callers: the block; a barrier follows.
template <bool kByExpert, class Payload>
MORI_DEVICE void send_tokens(const EpDispatchArgs& a, const DispatchBlock& block, Batch batch, uint32_t begin,
                             uint32_t end) {
  // From the last warp on, which gets fewer payloads when there are not enough for all.
  for (uint32_t rank = warps_per_block() - 1 - warp_id(); rank < a.world.world_size;
       rank += warps_per_block())
    send_records<kByExpert>(a, block, batch, begin, end, rank);
  // Few tokens: several warps share a row.
  const uint32_t size = end - begin, most = Payload::most_parts(a), wanted = warps_per_block() / size;
  const uint32_t parts = wanted < 1 ? 1 : wanted < most ? wanted : most;
  for (uint32_t i = warp_id(); i < size * parts; i += warps_per_block()) {
    Payload::template send<kByExpert>(a, block, batch, begin + i / parts, i % parts, parts);
  }
  finish_large_copies();
}

/// Counts batch tokens [begin, end) as sent. Callers: the last warp; each lane has its ranks.
MORI_DEVICE void count_sent(const EpDispatchArgs& a, const DispatchBlock& block, uint32_t begin,
                            uint32_t end) {
  for (uint32_t rank = lane_id(); rank < a.world.world_size; rank += kWarpSize) {
    uint32_t rows = 0;
    for (uint32_t t = begin; t < end; ++t) rows += uint32_t(block.masks[t] >> rank & 1);
    block.sent_row[rank] += rows;
  }
}

/// Tells every rank that a chunk of mine is there. Callers: the last warp, behind a barrier after the copies;
/// the other warps go on meanwhile.
template <bool kByExpert>
MORI_DEVICE void publish_chunk(const EpDispatchArgs& a, const DispatchBlock& block, uint32_t chunk) {
  const uint32_t ranks = a.world.world_size, me = a.world.rank;
  const uint64_t active = active_ranks(a), at = uint64_t(me) * kEpMaxChunks + chunk;
  for (uint32_t peer = lane_id(); peer < ranks; peer += kWarpSize) {
    if (!is_active(active, peer)) continue;
    if constexpr (kByExpert) {
      const uint32_t row = block.chunk_row[peer], end = block.sent_row[peer];
      global<uint64_t>(block.destination[peer] + a.receive.ranges)[at] =
          uint64_t(row - block.first_row[peer]) << 32 | (end - row);
      block.chunk_row[peer] = end;
    }
    raise_signal(a.world, peer, a.shared.chunk_flags + 8 * at, *block.epoch);
  }
}

/// Sends the tokens of this block; its first batch is loaded. Callers: the block.
template <bool kByExpert, class Payload>
MORI_DEVICE void send_all(const EpDispatchArgs& a, const DispatchBlock& block, Batch batch) {
  const uint32_t turns = a.chunks / a.senders, end = block_begin(a, block_id() + 1);
  const bool last_warp = warp_id() + 1 == warps_per_block();
  uint32_t at = batch.first, turn = 0;
  auto chunk_end = [&](uint32_t of) { return chunk_begin(a, block_id(), of + 1); };
  auto next_stop = [&](uint32_t behind) {  // where the chunk of token `at` ends, or the batch
    uint32_t of = turn;
    while (of + 1 < turns && chunk_end(of) <= at) ++of;
    return chunk_end(of) < behind ? chunk_end(of) : behind;
  };
  auto publish = [&] {  // the chunks that end here, without tokens too
    for (; turn < turns && chunk_end(turn) <= at; ++turn) {
      if (last_warp) publish_chunk<kByExpert>(a, block, turn * a.senders + block_id());
    }
  };
  publish();
  while (at < end) {
    const uint32_t behind = batch.first + batch.size;
    uint64_t* masks = global<uint64_t>(a.routing.masks) + batch.first;
    for (uint32_t t = block_lane(); t < batch.size; t += block_lanes()) masks[t] = block.masks[t];
    assign_rows(a, block, batch);
    if (a.load != 0) add_load(a, block, batch);
    uint32_t stop = next_stop(behind);
    if (kByExpert && last_warp) assign_slots(a, block, at - batch.first, stop - batch.first);
    sync_block();
    while (at < behind) {
      const uint32_t begin = at - batch.first, part_end = stop - batch.first;
      at = stop;
      if (at < behind) stop = next_stop(behind);
      // The last warp is one part ahead with the slots, and raises flags while the others go on.
      if (kByExpert && last_warp) assign_slots(a, block, part_end, stop - batch.first);
      send_tokens<kByExpert, Payload>(a, block, batch, begin, part_end);
      sync_block();
      if (at == end) note_time(a.trace, kTraceSent);
      if (last_warp) count_sent(a, block, begin, part_end);
      publish();
    }
    if (at == end) break;
    batch = batch_at(a, at, end);
    sync_block();  // the last warp has counted
    load_batch<kByExpert>(a, block, batch);
    sync_block();
  }
  if (a.trace != 0) sync_block();
  note_time(a.trace, kTracePublished);
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace
}  // namespace mori
