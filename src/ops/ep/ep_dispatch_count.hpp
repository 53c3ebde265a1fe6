// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Dispatch, phases 1 and 2 of docs/ep.md:
//   count     what lies before this block's tokens, by key (rank, and in the expert layouts expert)
//   announce  the last sender block knows the counts of all tokens: its line of the matrix to every rank
// With few tokens, and in the expert layouts, each block counts for itself what comes before it. Else each
// counts its own tokens and tells the other blocks.
#pragma once
#include "src/ops/ep/ep_device.hpp"

namespace mori {
namespace {
inline namespace MORI_TARGET_NAMESPACE {

inline constexpr uint8_t kNobody = 0xff;  // holds no expert of this selection

/// The block's shared memory. "by rank" has an entry for each rank, "by key" one for each expert in key order
/// (expert layouts), "by token" one for each token of a batch.
struct DispatchBlock {
  uint64_t* epoch;
  uint64_t* refusal;      // peer, expected, seen
  uint64_t* bad_id;       // 0, or 1 << 32 | an id out of range
  uint64_t* destination;  // by rank: start of its receive buffer, as mapped here
  uint64_t* masks;        // by token: ranks it goes to
  uint32_t* flag;
  uint32_t* refused_by;   // 0, or a Refusal
  uint32_t* overflow;     // not 0: some expert gets more rows than it has slots
  uint32_t* ticket;       // the chunk that this block spreads next
  uint32_t* lines;        // [ranks][kAnnounceCounts + ranks]: the announcements without their expert counts
  uint32_t* first_row;    // by rank: my first row there
  uint32_t* sent_before;  // by rank: rows I send to lower ranks, where its rows begin in my combine buffer
  uint32_t* total;        // by rank: rows it receives; before the plan, what I send it from my first token on
  uint32_t* source_row;   // by rank: first of the rows that I receive from it
  uint32_t* cursor;       // by rank: this block's next row there; before the plan, rows of earlier tokens
  uint32_t* key_cursor;   // by key: this block's next slot; before the plan, selections of earlier tokens
  uint32_t* key_total;    // by key: selections of all ranks; before the plan, as total
  uint32_t* counts;       // rows of each of my experts
  uint32_t* offsets;      // [experts_per_rank + 1] first slot of each of my experts, then the slots used
  uint32_t* chunk_row;    // by rank: first row there of the running chunk; the last warp's
  uint32_t* sent_row;     // by rank: next row there that is not sent; the last warp's
  uint32_t* rows;         // by token: [fan] row at each destination, ascending rank
  uint32_t* slots;        // by token: [topk] slot of each selection; expert layouts
  uint16_t* key_of;       // by expert: its key; expert layouts
  uint8_t* rank_of;       // by expert: its rank, where there are no more than kEpCachedExperts
  uint8_t* owners;        // by token: [topk] rank of each selection, or kNobody

  MORI_DEVICE explicit DispatchBlock(const EpDispatchArgs& a) {
    const uint32_t ranks = a.world.world_size;
    const uint32_t keys = a.placement == EpPlacement::rank ? 0 : a.num_experts;
    uint64_t* words = shared_memory<uint64_t>();
    epoch = words;
    refusal = words + 1;
    bad_id = words + 4;
    destination = words + 5;
    masks = destination + ranks;
    flag = reinterpret_cast<uint32_t*>(masks + a.batch);
    refused_by = flag + 1;
    overflow = flag + 2;
    ticket = flag + 3;
    lines = flag + 4;
    first_row = lines + ranks * (kAnnounceCounts + ranks);
    sent_before = first_row + ranks;
    total = sent_before + ranks;
    source_row = total + ranks;
    cursor = source_row + ranks;
    key_cursor = cursor + ranks;
    key_total = key_cursor + keys;
    counts = key_total + keys;
    offsets = counts + (keys == 0 ? 0 : a.experts_per_rank);
    chunk_row = offsets + (keys == 0 ? 0 : a.experts_per_rank + 1);
    sent_row = chunk_row + ranks;
    rows = sent_row + ranks;
    slots = rows + a.batch * a.fan;
    key_of = reinterpret_cast<uint16_t*>(slots + (keys == 0 ? 0 : a.batch * a.topk));
    rank_of = reinterpret_cast<uint8_t*>(key_of + keys);
    owners = rank_of + (a.num_experts <= kEpCachedExperts ? a.num_experts : 0);
  }

  MORI_DEVICE uint32_t* line(const EpDispatchArgs& a, uint32_t source) const {
    return lines + source * (kAnnounceCounts + a.world.world_size);
  }
  MORI_DEVICE uint32_t sends(const EpDispatchArgs& a, uint32_t from, uint32_t to) const {
    return line(a, from)[kAnnounceCounts + to];
  }
};

/// Ranks that take part. Read once by each lane that asks: the caller does not change it meanwhile.
MORI_DEVICE uint64_t active_ranks(const EpDispatchArgs& a) {
  const uint64_t all = ~uint64_t(0) >> (64 - a.world.world_size);
  return a.active == 0 ? all : all & *global<const uint64_t>(a.active);
}
MORI_DEVICE bool is_active(uint64_t active, uint32_t rank) { return (active >> rank & 1) != 0; }

/// Tokens of chunk c: those of a sender block are contiguous, and its chunks are numbered in steps of the
/// number of senders, so that chunks come in the order of their numbers.
MORI_DEVICE uint32_t chunk_begin(const EpDispatchArgs& a, uint32_t block, uint32_t turn) {
  return uint32_t(uint64_t(a.tokens) * (block * (a.chunks / a.senders) + turn) / a.chunks);
}
MORI_DEVICE uint32_t block_begin(const EpDispatchArgs& a, uint32_t block) { return chunk_begin(a, block, 0); }

/// Consecutive tokens that are planned and sent together.
struct Batch {
  uint32_t first, size;
};
MORI_DEVICE Batch batch_at(const EpDispatchArgs& a, uint32_t first, uint32_t last) {
  return {first, last - first < a.batch ? last - first : a.batch};
}

inline constexpr uint32_t kIdsAtOnce = 8;  // loads in flight for a token

/// Selections [start, start + kIdsAtOnce) of a token, -1 behind the last. Callers: one lane.
MORI_DEVICE void load_ids(const EpDispatchArgs& a, uint64_t token, uint32_t start,
                          int64_t (&ids)[kIdsAtOnce]) {
  const uint64_t first = token * a.topk + start;
  if (a.id_bytes == 4 && start + kIdsAtOnce <= a.topk && ((a.ids + first * 4) & 15u) == 0) {
    struct Quad {
      int32_t id[4];
    };
    MORI_UNROLL
    for (uint32_t q = 0; q < kIdsAtOnce / 4; ++q) {
      const vec16 raw = load_cached(global<const vec16>(a.ids + first * 4) + q);
      const Quad quad = __builtin_bit_cast(Quad, raw);
      MORI_UNROLL
      for (uint32_t i = 0; i < 4; ++i) ids[q * 4 + i] = quad.id[i];
    }
    return;
  }
  MORI_UNROLL
  for (uint32_t i = 0; i < kIdsAtOnce; ++i)
    ids[i] = start + i < a.topk ? load_id(a.ids, a.id_bytes, first + i) : -1;
}

MORI_DEVICE uint32_t rank_of(const EpDispatchArgs& a, const DispatchBlock& block, uint64_t expert) {
  if (a.num_experts <= kEpCachedExperts) return block.rank_of[expert];
  return uint32_t(global<const int32_t>(a.experts.rank)[expert]);
}

/// visit(k, id, rank) for those of the selections that go somewhere. Callers: one lane. Returns their ranks.
template <class Visit>
MORI_DEVICE uint64_t for_selections(const EpDispatchArgs& a, const DispatchBlock& block, uint64_t active,
                                    uint32_t start, const int64_t (&ids)[kIdsAtOnce], Visit visit) {
  uint64_t mask = 0;
  MORI_UNROLL
  for (uint32_t i = 0; i < kIdsAtOnce; ++i) {
    if (ids[i] >= 0 && ids[i] < int64_t(a.num_experts)) {
      const uint32_t rank = rank_of(a, block, uint64_t(ids[i]));
      if (!is_active(active, rank)) continue;
      mask |= uint64_t(1) << rank;
      visit(start + i, uint32_t(ids[i]), rank);
    } else if (ids[i] != -1) {
      store_relaxed<Scope::block>(block.bad_id, uint64_t(1) << 32 | uint32_t(ids[i]));
    }
  }
  return mask;
}

/// Notes one selection of batch token t.
template <bool kByExpert>
MORI_DEVICE void note_selection(const EpDispatchArgs& a, const DispatchBlock& block, uint32_t t, uint32_t k,
                                uint32_t id, uint32_t rank) {
  block.owners[t * a.topk + k] = uint8_t(rank);
  if constexpr (kByExpert) block.slots[t * a.topk + k] = block.key_of[id];
}

inline constexpr uint32_t kCountAhead = kWarpSize == 1 ? 1 : 2;  // tokens of a lane with ids in flight

/// Whether blocks count their own tokens only and tell each other: sooner than counting alone what others
/// count, when that takes more than one round.
template <bool kByExpert>
MORI_DEVICE bool shares_counts(const EpDispatchArgs& a) {
  return !kByExpert && a.senders > 1 && a.tokens > block_lanes() * kCountAhead;
}

/// One pass over tokens. Where counts are shared: over this block's, for their counts (total). Else up to the
/// end of this block's first batch, in the last sender block over all: counts of what comes before `batch`
/// (cursor, key_cursor) and of the rest (total, key_total). And the batch itself. Callers: the block.
template <bool kByExpert>
MORI_DEVICE void count(const EpDispatchArgs& a, const DispatchBlock& block, Batch batch) {
  constexpr uint32_t kPerLane = (kMaxRanks + kWarpSize - 1) / kWarpSize;
  constexpr uint32_t kAhead = kCountAhead;
  const uint32_t ranks = a.world.world_size, first = batch.first, behind = batch.first + batch.size;
  const bool shares = shares_counts<kByExpert>(a), last = block_id() + 1 == a.senders, all = last || shares;
  const uint32_t begin = shares ? first : 0;
  const uint32_t end = last ? a.tokens : shares ? block_begin(a, block_id() + 1) : behind;
  const uint64_t active = active_ranks(a);
  uint32_t before[kPerLane] = {}, rest[kPerLane] = {};
  for (uint32_t start = begin + warp_id() * kWarpSize * kAhead; start < end;
       start += block_lanes() * kAhead) {
    uint64_t masks[kAhead] = {};
    for (uint32_t k = 0; k < a.topk; k += kIdsAtOnce) {
      int64_t ids[kAhead][kIdsAtOnce];
      MORI_UNROLL
      for (uint32_t u = 0; u < kAhead; ++u) {
        const uint32_t token = start + u * kWarpSize + lane_id();
        if (token < end) load_ids(a, token, k, ids[u]);
      }
      MORI_UNROLL
      for (uint32_t u = 0; u < kAhead; ++u) {
        const uint32_t token = start + u * kWarpSize + lane_id();
        if (token >= end) continue;
        masks[u] |= for_selections(a, block, active, k, ids[u], [&](uint32_t at, uint32_t id, uint32_t rank) {
          if (token >= first && token < behind)
            note_selection<kByExpert>(a, block, token - first, at, id, rank);
          if (kByExpert && (all || token < first))
            shared_add((token < first ? block.key_cursor : block.key_total) + block.key_of[id], 1);
        });
      }
    }
    MORI_UNROLL
    for (uint32_t u = 0; u < kAhead; ++u) {
      const uint32_t token = start + u * kWarpSize + lane_id();
      if (token >= first && token < behind) block.masks[token - first] = masks[u];
      for (uint32_t rank = 0; rank < ranks; ++rank) {
        const bool goes = (masks[u] >> rank & 1) != 0, mine = rank % kWarpSize == lane_id();
        const uint32_t votes = count_lanes(ballot(goes && token < first));
        if (mine) before[rank / kWarpSize] += votes;
        if (!all) continue;
        const uint32_t other = count_lanes(ballot(goes && token >= first));
        if (mine) rest[rank / kWarpSize] += other;
      }
    }
  }
  MORI_UNROLL
  for (uint32_t i = 0; i < kPerLane; ++i) {
    const uint32_t rank = i * kWarpSize + lane_id();
    if (rank < ranks && before[i] != 0) shared_add(block.cursor + rank, before[i]);
    if (rank < ranks && rest[i] != 0) shared_add(block.total + rank, rest[i]);
  }
}

/// Tells the other sender blocks what this one counted, and learns what comes before its tokens (cursor), in
/// the last one whether any block has met a bad id. False in all lanes: the error word is set. Callers: the
/// block, behind a barrier after counting; ends with one.
MORI_DEVICE bool share_counts(const EpDispatchArgs& a, const DispatchBlock& block) {
  const uint32_t ranks = a.world.world_size, words = ranks + kEpCountWords, tag = tag_of(*block.epoch);
  uint64_t* lines = global<uint64_t>(a.local + sizeof(EpLocal));
  const uint64_t bad_id = load_relaxed<Scope::block>(block.bad_id);
  for (uint32_t i = block_lane(); i < words; i += block_lanes()) {
    const uint32_t value = i < ranks                      ? block.total[i]
                           : i == ranks + kEpCountRefused ? uint32_t(bad_id >> 32)
                                                          : uint32_t(bad_id);
    store_tagged(lines + uint64_t(block_id()) * words + i, tag, value);
  }
  bool came = true;
  for (uint32_t i = block_lane(); i < block_id() * words && came; i += block_lanes()) {
    const uint32_t word = i % words;
    if (word == ranks + kEpCountId) continue;
    uint32_t value = 0;
    came = wait_tagged(a.world, lines + i, tag, Wait::grid, a.world.rank, value);
    if (!came || value == 0) continue;
    if (word < ranks) {
      shared_add(block.cursor + word, value);
    } else if (wait_tagged(a.world, lines + i + 1, tag, Wait::grid, a.world.rank, value)) {
      store_relaxed<Scope::block>(block.bad_id, uint64_t(1) << 32 | value);
    }
  }
  return Block{block.flag}.all(came);
}

/// Phase 1: counts, this block's first batch, and the epoch. False in all lanes: the error word is set.
/// Callers: the block.
template <bool kByExpert>
[[nodiscard]] MORI_DEVICE bool count_for_block(const EpDispatchArgs& a, const DispatchBlock& block,
                                               Batch batch) {
  for (uint32_t i = block_lane(); i < a.world.world_size; i += block_lanes()) {
    block.cursor[i] = block.total[i] = 0;
    block.destination[i] = global<const uint64_t>(a.world.bases)[i];
  }
  for (uint32_t i = block_lane(); i < a.num_experts && a.num_experts <= kEpCachedExperts; i += block_lanes())
    block.rank_of[i] = uint8_t(global<const int32_t>(a.experts.rank)[i]);
  if constexpr (kByExpert) {
    for (uint32_t i = block_lane(); i < a.num_experts; i += block_lanes()) {
      block.key_of[i] = uint16_t(global<const int32_t>(a.experts.key)[i]);
      block.key_cursor[i] = block.key_total[i] = 0;
    }
  }
  for (uint32_t i = block_lane(); i < batch.size * a.topk; i += block_lanes()) block.owners[i] = kNobody;
  if (block_lane() == 0) {
    *block.bad_id = 0;
    *block.overflow = 0;
    // Until the routes are written the handle says so, whatever happens to this launch.
    if (block_id() == 0) global<int64_t>(a.routing.header)[0] = -1;
  }
  sync_block();
  if (block_lane() + kWarpSize == block_lanes()) {  // the last warp's first lane, while others count
    EpLocal* local = global<EpLocal>(a.local);
    *block.epoch = blocks::begin_epoch(&local->dispatch_epoch, &local->arrivals[0]);
    if (kByExpert && block_id() == 0)  // of the next call: this one's were set back by the one before
      store_relaxed<Scope::device>(&local->dispatch_tickets[(*block.epoch + 1) & 1u], uint64_t(0));
  }
  const bool sender = block_id() < a.senders;  // others only make copies
  if (sender) count<kByExpert>(a, block, batch);
  sync_block();
  return !sender || !shares_counts<kByExpert>(a) || share_counts(a, block);
}

/// Phase 2, by the last sender block. The announcement is also the credit for my receive buffer: nobody
/// writes to it before. Callers: the block.
template <bool kByExpert>
MORI_DEVICE void announce(const EpDispatchArgs& a, const DispatchBlock& block) {
  const uint32_t ranks = a.world.world_size, me = a.world.rank;
  const uint32_t words = kAnnounceCounts + ranks + (kByExpert ? a.num_experts : 0);
  const uint32_t tag = tag_of(*block.epoch);
  const uint64_t active = active_ranks(a), bad_id = load_relaxed<Scope::block>(block.bad_id);
  const uint64_t line = a.shared.announcements + 8ull * words * ((*block.epoch & 1) * ranks + me);
  for (uint32_t i = block_lane(); i < ranks * words; i += block_lanes()) {
    const uint32_t peer = (me + 1 + i / words) % ranks, word = i % words;
    if (!is_active(active, peer)) continue;
    uint32_t value = 0;
    if (word >= kAnnounceCounts + ranks) {
      value =
          block.key_cursor[word - kAnnounceCounts - ranks] + block.key_total[word - kAnnounceCounts - ranks];
    } else if (word >= kAnnounceCounts) {
      value = block.cursor[word - kAnnounceCounts] + block.total[word - kAnnounceCounts];
    } else if (word == kAnnounceDigest) {
      value = a.digest ^ uint32_t(active) ^ uint32_t(active >> 32);
    } else if (word == kAnnounceBuffer) {
      value = a.buffer;
    } else if (word == kAnnounceChunks) {
      value = a.chunks;
    } else if (word == kAnnounceRefused) {
      value = uint32_t(bad_id >> 32);
    } else {
      value = uint32_t(bad_id);
    }
    store_tagged(peer_pointer<uint64_t>(a.world, peer, line) + word, tag, value);
  }
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace
}  // namespace mori
