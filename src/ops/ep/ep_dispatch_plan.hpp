// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Dispatch, phase 3 of docs/ep.md: every line of the matrix is read, in every block. From it come the
// verdict, which is the same on all ranks, the place of this block's first token everywhere, and the routing
// handle.
#pragma once
#include "src/ops/ep/ep_dispatch_count.hpp"

namespace mori {
namespace {
inline namespace MORI_TARGET_NAMESPACE {

/// Every active rank's line into shared memory, its expert counts into sums over sources: key_cursor grows by
/// those of lower ranks, key_total holds all. False in all lanes: the error word is set. Callers: the block.
template <bool kByExpert>
MORI_DEVICE bool read_announcements(const EpDispatchArgs& a, const DispatchBlock& block) {
  const uint32_t ranks = a.world.world_size, me = a.world.rank, head = kAnnounceCounts + ranks;
  const uint32_t words = head + (kByExpert ? a.num_experts : 0);
  const uint32_t tag = tag_of(*block.epoch);
  const uint64_t active = active_ranks(a);
  const uint64_t* matrix = peer_pointer<const uint64_t>(
      a.world, me, a.shared.announcements + 8ull * words * ((*block.epoch & 1) * ranks));
  if constexpr (kByExpert) {
    sync_block();  // the last sender block has announced what it counted
    for (uint32_t i = block_lane(); i < a.num_experts; i += block_lanes()) block.key_total[i] = 0;
    sync_block();
  }
  bool came = true;
  for (uint32_t i = block_lane(); i < ranks * words && came; i += block_lanes()) {
    const uint32_t source = i / words, word = i % words;
    uint32_t value = 0;
    if (is_active(active, source)) {
      came = wait_tagged(a.world, matrix + i, tag, Wait::dispatch_counts, source, value);
    }
    if (word < head) {
      block.line(a, source)[word] = value;
    } else if (kByExpert && value != 0) {
      shared_add(block.key_total + word - head, value);
      if (source < me) shared_add(block.key_cursor + word - head, value);
    }
  }
  return Block{block.flag}.all(came);
}

MORI_DEVICE void refuse(const DispatchBlock& block, Refusal why, uint64_t peer, uint64_t expected,
                        uint64_t seen) {
  *block.refused_by = uint32_t(why);
  block.refusal[0] = peer;
  block.refusal[1] = expected;
  block.refusal[2] = seen;
}

/// Slots that rank d needs in the grouped layout. Callers: one lane.
MORI_DEVICE uint64_t grouped_slots(const EpDispatchArgs& a, const DispatchBlock& block, uint32_t rank) {
  const int32_t* first = global<const int32_t>(a.experts.first);
  uint64_t slots = 0;
  for (int32_t key = first[rank]; key < first[rank + 1]; ++key) {
    slots += (uint64_t(block.key_total[key]) + a.alignment - 1) / a.alignment * a.alignment;
  }
  return slots;
}

/// Every rank reads the same lines, so all come to the same verdict. Callers: one lane.
MORI_DEVICE void judge(const EpDispatchArgs& a, const DispatchBlock& block) {
  const uint32_t ranks = a.world.world_size;
  const uint64_t active = active_ranks(a);
  const uint32_t digest = a.digest ^ uint32_t(active) ^ uint32_t(active >> 32);
  *block.refused_by = 0;
  for (uint32_t s = 0; s < ranks; ++s) {
    const uint32_t theirs = block.line(a, s)[kAnnounceDigest];
    if (is_active(active, s) && theirs != digest) return refuse(block, Refusal::mismatch, s, digest, theirs);
  }
  for (uint32_t s = 0; s < ranks; ++s) {
    const uint32_t* line = block.line(a, s);
    if (line[kAnnounceRefused] != 0)
      return refuse(block, Refusal::expert_id, s, a.num_experts, line[kAnnounceId]);
  }
  for (uint32_t d = 0; d < ranks; ++d) {
    if (block.total[d] > a.capacity) return refuse(block, Refusal::capacity, d, a.capacity, block.total[d]);
  }
  if (*block.overflow == 0) return;
  for (uint32_t d = 0; d < ranks; ++d) {
    if (a.placement == EpPlacement::grouped) {
      const uint64_t slots = grouped_slots(a, block, d);
      if (slots > a.slots) return refuse(block, Refusal::expert_capacity, d, a.slots, slots);
      continue;
    }
    const int32_t* first = global<const int32_t>(a.experts.first);
    for (int32_t key = first[d]; key < first[d + 1]; ++key) {
      if (block.key_total[key] > a.expert_capacity)
        return refuse(block, Refusal::expert_capacity, d, a.expert_capacity, block.key_total[key]);
    }
  }
}

/// Places by rank, from the lines. Callers: the block, one lane for each rank.
MORI_DEVICE void place_rows(const EpDispatchArgs& a, const DispatchBlock& block) {
  const uint32_t ranks = a.world.world_size, me = a.world.rank;
  for (uint32_t r = block_lane(); r < ranks; r += block_lanes()) {
    uint64_t total = 0;
    uint32_t before_me = 0, from_lower = 0, to_lower = 0;
    for (uint32_t s = 0; s < ranks; ++s) {
      const uint32_t rows = block.sends(a, s, r);
      total += rows;
      if (s < me) before_me += rows;
      if (s < r) from_lower += block.sends(a, s, me);
      if (s < r) to_lower += block.sends(a, me, s);
    }
    block.total[r] = total < 0xffffffffu ? uint32_t(total) : 0xffffffffu;
    block.first_row[r] = before_me;
    block.cursor[r] += before_me;
    block.chunk_row[r] = block.sent_row[r] = block.cursor[r];
    block.sent_before[r] = to_lower;
    block.source_row[r] = from_lower;
    block.destination[r] += a.shared.receive + block.line(a, r)[kAnnounceBuffer] * a.shared.receive_stride;
  }
}

/// Places by expert: key_cursor grows by the first slot of the expert. A rank is one warp's.
MORI_DEVICE void place_slots(const EpDispatchArgs& a, const DispatchBlock& block) {
  const int32_t* first_key = global<const int32_t>(a.experts.first);
  for (uint32_t rank = warp_id(); rank < a.world.world_size; rank += warps_per_block()) {
    const uint32_t first = uint32_t(first_key[rank]), experts = uint32_t(first_key[rank + 1]) - first;
    uint64_t used = 0;  // slots of the experts before these
    for (uint32_t start = 0; start < experts; start += kWarpSize) {
      const uint32_t local = start + lane_id();
      const uint32_t total = local < experts ? block.key_total[first + local] : 0;
      uint32_t room = (total + a.alignment - 1) / a.alignment * a.alignment;
      if (a.placement == EpPlacement::expert) room = local < experts ? a.expert_capacity : 0;
      if (a.placement == EpPlacement::expert && total > room) store_relaxed<Scope::block>(block.overflow, 1u);
      const uint32_t through = warp_prefix(room);
      const uint32_t offset = uint32_t(used) + through - room;
      if (local < experts) {
        block.key_cursor[first + local] += offset;
        if (rank == a.world.rank) block.counts[local] = total;
        if (rank == a.world.rank) block.offsets[local] = offset;
      }
      used += shuffle(through, kWarpSize - 1);
    }
    if (lane_id() == 0 && used > a.slots) store_relaxed<Scope::block>(block.overflow, 1u);
    if (lane_id() == 0 && rank == a.world.rank) {
      for (uint32_t local = experts; local < a.experts_per_rank; ++local) {
        block.counts[local] = 0;
        block.offsets[local] = uint32_t(used);
      }
      block.offsets[a.experts_per_rank] = uint32_t(used);
    }
  }
}

/// From the lines to places. False: refused, nothing may be written. Callers: the block.
template <bool kByExpert>
MORI_DEVICE bool plan(const EpDispatchArgs& a, const DispatchBlock& block) {
  place_rows(a, block);
  if constexpr (kByExpert) place_slots(a, block);
  sync_block();
  if (block_lane() == 0) judge(a, block);
  sync_block();
  return *block.refused_by == 0;
}

/// What the host, the expert code, combine and a later receive phase need to know. Callers: one block.
template <bool kByExpert>
MORI_DEVICE void write_routing(const EpDispatchArgs& a, const DispatchBlock& block, bool accepted) {
  const uint32_t ranks = a.world.world_size, me = a.world.rank;
  for (uint32_t s = block_lane(); s < ranks; s += block_lanes()) {
    int64_t returns = 0;
    for (uint32_t d = 0; d < me; ++d) returns += int64_t(block.sends(a, s, d));
    global<int64_t>(a.routing.received)[s] = accepted ? int64_t(block.sends(a, s, me)) : 0;
    global<int64_t>(a.routing.sent)[s] = accepted ? int64_t(block.sends(a, me, s)) : 0;
    global<int64_t>(a.routing.returns)[s] = accepted ? returns : 0;
    global<int64_t>(a.routing.chunks)[s] = accepted ? int64_t(block.line(a, s)[kAnnounceChunks]) : 0;
  }
  if constexpr (kByExpert) {
    for (uint32_t i = block_lane(); i <= a.experts_per_rank; i += block_lanes()) {
      if (i < a.experts_per_rank) global<uint32_t>(a.routing.counts)[i] = accepted ? block.counts[i] : 0;
      global<uint32_t>(a.routing.offsets)[i] = accepted ? block.offsets[i] : 0;
    }
  }
  if (block_lane() == 0) {
    int64_t* header = global<int64_t>(a.routing.header);
    header[0] = accepted ? int64_t(a.tokens) : -1;
    header[1] = accepted ? int64_t(block.total[me]) : 0;
    header[2] = int64_t(*block.epoch);
    header[3] = int64_t(a.stamp);
    *global<int64_t>(a.routing.buffer) = int64_t(a.buffer);
  }
}

/// What the receive phase needs, of a dispatch whose send phase was an earlier launch. False: it was refused.
template <bool kByExpert>
MORI_DEVICE bool recall(const EpDispatchArgs& a, const DispatchBlock& block) {
  const uint32_t ranks = a.world.world_size, me = a.world.rank;
  const int64_t* header = global<const int64_t>(a.routing.header);
  const int64_t* received = global<const int64_t>(a.routing.received);
  for (uint32_t r = block_lane(); r < ranks; r += block_lanes()) {
    uint32_t from_lower = 0;
    for (uint32_t s = 0; s < r; ++s) from_lower += uint32_t(received[s]);
    block.source_row[r] = from_lower;
    block.line(a, r)[kAnnounceChunks] = uint32_t(global<const int64_t>(a.routing.chunks)[r]);
  }
  if constexpr (kByExpert) {
    for (uint32_t i = block_lane(); i <= a.experts_per_rank; i += block_lanes()) {
      if (i < a.experts_per_rank) block.counts[i] = global<const uint32_t>(a.routing.counts)[i];
      block.offsets[i] = global<const uint32_t>(a.routing.offsets)[i];
    }
  }
  if (block_lane() == 0) {
    *block.epoch = uint64_t(header[2]);
    block.destination[me] = global<const uint64_t>(a.world.bases)[me] + a.shared.receive +
                            uint64_t(*global<const int64_t>(a.routing.buffer)) * a.shared.receive_stride;
  }
  sync_block();
  return header[0] >= 0;
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace
}  // namespace mori
