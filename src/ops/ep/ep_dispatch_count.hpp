// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Dispatch, phases 1 and 2 of docs/ep.md:
//   count     what lies before this block's tokens, by key (rank, and in the expert layouts expert)
//   announce  the last sender block has counted all tokens: its line of the matrix to every rank
// Blocks of a launch do not meet: each counts for itself what comes before it.
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
  uint32_t* chunk_row;    // by rank: this block's first row there in the running chunk
  uint32_t* rows;         // by token: [fan] row at each destination, ascending rank
  uint32_t* slots;        // by token: [topk] slot of each selection; expert layouts
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
    rows = chunk_row + ranks;
    slots = rows + a.batch * a.fan;
    owners = reinterpret_cast<uint8_t*>(slots + (keys == 0 ? 0 : a.batch * a.topk));
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

/// Visits the selections of a token: `visit(k, id, rank)` for those that go somewhere. Callers: one lane.
/// Returns the ranks that the token goes to.
template <class Visit>
MORI_DEVICE uint64_t for_selections(const EpDispatchArgs& a, const DispatchBlock& block, uint64_t active,
                                    uint64_t token, Visit visit) {
  constexpr uint32_t kAhead = 8;  // loads in flight
  const int32_t* expert_rank = global<const int32_t>(a.experts.rank);
  uint64_t mask = 0;
  for (uint32_t start = 0; start < a.topk; start += kAhead) {
    int64_t ids[kAhead];
    MORI_UNROLL
    for (uint32_t i = 0; i < kAhead; ++i) {
      ids[i] = start + i < a.topk ? load_id(a.ids, a.id_bytes, token * a.topk + start + i) : -1;
    }
    MORI_UNROLL
    for (uint32_t i = 0; i < kAhead; ++i) {
      if (ids[i] >= 0 && ids[i] < int64_t(a.num_experts)) {
        const uint32_t rank = uint32_t(expert_rank[ids[i]]);
        if (!is_active(active, rank)) continue;
        mask |= uint64_t(1) << rank;
        visit(start + i, uint32_t(ids[i]), rank);
      } else if (ids[i] != -1) {
        store_relaxed<Scope::block>(block.bad_id, uint64_t(1) << 32 | uint32_t(ids[i]));
      }
    }
  }
  return mask;
}

/// Adds the tokens of a range to counts by rank and by key. Callers: the block.
template <bool kByExpert>
MORI_DEVICE void count(const EpDispatchArgs& a, const DispatchBlock& block, uint32_t first, uint32_t last,
                       uint32_t* by_rank, uint32_t* by_key) {
  const uint32_t ranks = a.world.world_size;
  const uint64_t active = active_ranks(a);
  const int32_t* key = global<const int32_t>(a.experts.key);
  constexpr uint32_t kPerLane = (kMaxRanks + kWarpSize - 1) / kWarpSize;
  uint32_t mine[kPerLane] = {};
  for (uint32_t start = first + warp_id() * kWarpSize; start < last; start += block_lanes()) {
    const uint32_t token = start + lane_id();
    uint64_t mask = 0;
    if (token < last) {
      mask = for_selections(a, block, active, token, [&](uint32_t, uint32_t id, uint32_t) {
        if constexpr (kByExpert) shared_add(by_key + key[id], 1);
      });
    }
    for (uint32_t rank = 0; rank < ranks; ++rank) {
      const uint32_t votes = count_lanes(ballot((mask >> rank & 1) != 0));
      if (rank % kWarpSize == lane_id()) mine[rank / kWarpSize] += votes;
    }
  }
  MORI_UNROLL
  for (uint32_t i = 0; i < kPerLane; ++i) {
    const uint32_t rank = i * kWarpSize + lane_id();
    if (rank < ranks && mine[i] != 0) shared_add(by_rank + rank, mine[i]);
  }
}

/// Phase 1. Afterwards cursor and key_cursor hold what comes before this block's tokens and, in the last
/// sender block, total and key_total the rest. Callers: the block. The epoch is known when it returns.
template <bool kByExpert>
MORI_DEVICE void count_for_block(const EpDispatchArgs& a, const DispatchBlock& block) {
  const uint32_t ranks = a.world.world_size;
  for (uint32_t i = block_lane(); i < ranks; i += block_lanes()) block.cursor[i] = block.total[i] = 0;
  if constexpr (kByExpert) {
    for (uint32_t i = block_lane(); i < a.num_experts; i += block_lanes())
      block.key_cursor[i] = block.key_total[i] = 0;
  }
  if (block_lane() == 0) {
    EpLocal* local = global<EpLocal>(a.local);
    *block.epoch = begin_epoch(&local->dispatch_epoch, &local->arrivals[0]);
    *block.bad_id = 0;
    *block.overflow = 0;
    // Until the routes are written the handle says so, whatever happens to this launch.
    if (block_id() == 0) global<int64_t>(a.routing.header)[0] = -1;
  }
  sync_block();
  if (block_id() >= a.senders) return;  // makes copies only: it needs no place of its own
  const uint32_t first = block_begin(a, block_id());
  count<kByExpert>(a, block, 0, first, block.cursor, block.key_cursor);
  if (block_id() + 1 == a.senders) count<kByExpert>(a, block, first, a.tokens, block.total, block.key_total);
  sync_block();
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
