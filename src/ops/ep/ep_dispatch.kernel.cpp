// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Dispatch: each token once to every rank that holds one of its experts. Phases as in docs/ep.md:
//   1 count     warps own contiguous ranges of tokens: destinations of each, counts per warp and block
//   2 announce  the last block writes C[me][*], my receive buffer and a digest to every rank; signal
//   3 plan      every block waits for all rows of C, so that every slot is known
//   4 copy      payload and its companions straight into the final slot at the destination
//   5 publish   the last block signals every rank, 6 receives: waits for every rank's signal
// The announcement is also the credit for the receive buffer: nobody writes before it.
#include "src/ops/ep/ep_device.hpp"

namespace mori {
namespace {
inline namespace MORI_TARGET_NAMESPACE {

/// The block's shared memory; arrays have one entry per rank, cursors one row per warp.
struct DispatchBlock {
  uint32_t* flag;
  uint32_t* refused_by;   // 0, or 1 + Refusal
  uint64_t* refusal;      // peer, expected, seen
  uint64_t* destination;  // start of each rank's receive buffer, as mapped here
  uint32_t* first_slot;   // my first slot at each rank
  uint32_t* sent_before;  // rows I send to lower ranks: where a rank's rows begin in my combine buffer
  uint32_t* cursors;      // [warps][ranks]: counts, then the next slot of the warp at each rank

  MORI_DEVICE explicit DispatchBlock(uint32_t ranks) {
    uint64_t* words = shared_memory<uint64_t>();
    flag = reinterpret_cast<uint32_t*>(words);
    refused_by = flag + 1;
    refusal = words + 1;
    destination = refusal + 3;
    first_slot = reinterpret_cast<uint32_t*>(destination + ranks);
    sent_before = first_slot + ranks;
    cursors = sent_before + ranks;
  }
  MORI_DEVICE uint32_t* warp_cursors(uint32_t ranks) const { return cursors + warp_id() * ranks; }
};

/// Tokens of this warp: a contiguous range, so that slots follow token order.
struct TokenRange {
  uint32_t first, last;
};
MORI_DEVICE TokenRange my_tokens(const EpDispatchArgs& a) {
  const uint64_t tokens = a.tokens, warps = grid_warps(), warp = global_warp();
  return {uint32_t(tokens * warp / warps), uint32_t(tokens * (warp + 1) / warps)};
}

MORI_DEVICE uint32_t* block_counts(const EpDispatchArgs& a) {
  return global<uint32_t>(a.local + sizeof(EpLocal));
}

/// Ranks that hold an expert of the token, as a mask. Callers: the warp.
MORI_DEVICE uint64_t destinations(const EpDispatchArgs& a, uint64_t token) {
  const int32_t* expert_rank = global<const int32_t>(a.experts.rank);
  uint64_t mask = 0;
  for (uint32_t k = lane_id(); k < a.topk; k += kWarpSize) {
    const int64_t id = load_id(a.ids, a.id_bytes, token * a.topk + k);
    if (id >= 0 && id < int64_t(a.num_experts)) {
      mask |= uint64_t(1) << expert_rank[id];
    } else if (id != -1) {
      store_relaxed<Scope::device>(&global<EpLocal>(a.local)->refused, (uint64_t(1) << 32) | uint32_t(id));
    }
  }
  return warp_or(mask);
}

MORI_DEVICE void count(const EpDispatchArgs& a, const DispatchBlock& block) {
  const uint32_t ranks = a.world.world_size;
  constexpr uint32_t kPerLane = (kMaxRanks + kWarpSize - 1) / kWarpSize;
  uint32_t counts[kPerLane] = {};
  const TokenRange range = my_tokens(a);
  uint64_t* masks = global<uint64_t>(a.routing.masks);
  for (uint32_t token = range.first; token < range.last; ++token) {
    const uint64_t mask = destinations(a, token);
    if (lane_id() == 0) masks[token] = mask;
    MORI_UNROLL
    for (uint32_t c = 0; c < kPerLane; ++c) counts[c] += uint32_t(mask >> (c * kWarpSize + lane_id())) & 1u;
  }
  MORI_UNROLL
  for (uint32_t c = 0; c < kPerLane; ++c) {
    const uint32_t rank = c * kWarpSize + lane_id();
    if (rank < ranks) block.warp_cursors(ranks)[rank] = counts[c];
  }
  sync_block();
  for (uint32_t rank = block_lane(); rank < ranks; rank += block_lanes()) {
    uint32_t sum = 0;
    for (uint32_t w = 0; w < warps_per_block(); ++w) sum += block.cursors[w * ranks + rank];
    block_counts(a)[block_id() * ranks + rank] = sum;
  }
}

MORI_DEVICE void announce(const EpDispatchArgs& a, const DispatchBlock& block, uint64_t epoch) {
  const uint32_t ranks = a.world.world_size, me = a.world.rank, width = ranks + kCountsExtra;
  for (uint32_t rank = warp_id(); rank < ranks; rank += warps_per_block()) {
    uint64_t sum = 0;
    for (uint32_t b = lane_id(); b < grid_blocks(); b += kWarpSize) sum += block_counts(a)[b * ranks + rank];
    sum = warp_sum(sum);
    if (lane_id() == 0) block.first_slot[rank] = uint32_t(sum);
  }
  sync_block();
  EpLocal* local = global<EpLocal>(a.local);
  const uint64_t refused = load_relaxed<Scope::device>(&local->refused);
  for (uint32_t i = block_lane(); i < ranks * width; i += block_lanes()) {
    const uint32_t peer = i / width, column = i % width;
    uint64_t value = 0;
    if (column < ranks) value = block.first_slot[column];
    if (column == ranks + kCountsBuffer) value = a.shared.receive + a.buffer * a.shared.receive_stride;
    if (column == ranks + kCountsDigest) value = a.digest;
    if (column == ranks + kCountsRefused) value = refused;
    store_relaxed<Scope::system>(peer_pointer<uint64_t>(a.world, peer, a.shared.counts) + me * width + column,
                                 value);
  }
  sync_block();
  if (block_lane() == 0) store_relaxed<Scope::device>(&local->refused, uint64_t(0));
  signal_all(Block{block.flag}, a.world, a.shared.counts_signal, epoch);
}

MORI_DEVICE void refuse(const DispatchBlock& block, Refusal why, uint64_t peer, uint64_t expected,
                        uint64_t seen) {
  *block.refused_by = uint32_t(why);
  block.refusal[0] = peer;
  block.refusal[1] = expected;
  block.refusal[2] = seen;
}

/// Every rank reads the same matrix, so all come to the same verdict. Callers: one lane.
MORI_DEVICE void judge(const EpDispatchArgs& a, const DispatchBlock& block, const uint64_t* matrix) {
  const uint32_t ranks = a.world.world_size, width = ranks + kCountsExtra;
  *block.refused_by = 0;
  for (uint32_t s = 0; s < ranks; ++s) {
    const uint64_t* extra = matrix + s * width + ranks;
    if (extra[kCountsDigest] != a.digest)
      return refuse(block, Refusal::mismatch, s, a.digest, extra[kCountsDigest]);
  }
  for (uint32_t s = 0; s < ranks; ++s) {
    const uint64_t refused = matrix[s * width + ranks + kCountsRefused];
    if (refused != 0) return refuse(block, Refusal::expert_id, s, a.num_experts, uint32_t(refused));
  }
  for (uint32_t d = 0; d < ranks; ++d) {
    uint64_t total = 0;
    for (uint32_t s = 0; s < ranks; ++s) total += matrix[s * width + d];
    if (total > a.capacity) return refuse(block, Refusal::capacity, d, a.capacity, total);
  }
}

/// From the matrix to slots. False: refused, nothing may be written. Callers: the block.
MORI_DEVICE bool plan(const EpDispatchArgs& a, const DispatchBlock& block) {
  const uint32_t ranks = a.world.world_size, me = a.world.rank, width = ranks + kCountsExtra;
  const uint64_t* matrix = peer_pointer<const uint64_t>(a.world, me, a.shared.counts);
  if (block_lane() == 0) judge(a, block, matrix);
  for (uint32_t d = warp_id(); d < ranks; d += warps_per_block()) {
    uint64_t before_me = 0, to_lower = 0, earlier_blocks = 0;
    for (uint32_t s = lane_id(); s < ranks; s += kWarpSize) {
      if (s < me) before_me += matrix[s * width + d];
      if (s < d) to_lower += matrix[me * width + s];
    }
    for (uint32_t b = lane_id(); b < block_id(); b += kWarpSize)
      earlier_blocks += block_counts(a)[b * ranks + d];
    before_me = warp_sum(before_me);
    to_lower = warp_sum(to_lower);
    earlier_blocks = warp_sum(earlier_blocks);
    if (lane_id() == 0) {
      block.destination[d] =
          global<const uint64_t>(a.world.bases)[d] + matrix[d * width + ranks + kCountsBuffer];
      block.first_slot[d] = uint32_t(before_me);
      block.sent_before[d] = uint32_t(to_lower);
      uint32_t slot = uint32_t(before_me + earlier_blocks);  // counts of the warps become their first slots
      for (uint32_t w = 0; w < warps_per_block(); ++w) {
        const uint32_t counted = block.cursors[w * ranks + d];
        block.cursors[w * ranks + d] = slot;
        slot += counted;
      }
    }
  }
  sync_block();
  return *block.refused_by == 0;
}

/// What the host, the expert code and combine need to know. Callers: one block.
MORI_DEVICE void write_routing(const EpDispatchArgs& a, bool accepted, uint64_t epoch) {
  const uint32_t ranks = a.world.world_size, me = a.world.rank, width = ranks + kCountsExtra;
  const uint64_t* matrix = peer_pointer<const uint64_t>(a.world, me, a.shared.counts);
  for (uint32_t s = block_lane(); s < ranks; s += block_lanes()) {
    int64_t returns = 0;
    for (uint32_t d = 0; d < me; ++d) returns += int64_t(matrix[s * width + d]);
    global<int64_t>(a.routing.received)[s] = accepted ? int64_t(matrix[s * width + me]) : 0;
    global<int64_t>(a.routing.sent)[s] = accepted ? int64_t(matrix[me * width + s]) : 0;
    global<int64_t>(a.routing.returns)[s] = accepted ? returns : 0;
  }
  if (block_lane() == 0) {
    int64_t total = 0;
    for (uint32_t s = 0; s < ranks; ++s) total += int64_t(matrix[s * width + me]);
    global<int64_t>(a.routing.header)[0] = accepted ? int64_t(a.tokens) : -1;
    global<int64_t>(a.routing.header)[1] = accepted ? total : 0;
    global<int64_t>(a.routing.header)[2] = int64_t(epoch);
    global<int64_t>(a.routing.header)[3] = int64_t(a.stamp);
  }
}

/// Copies a row whose size need not be a multiple of 16. Callers: the warp.
MORI_DEVICE void copy_scales(uint64_t to, uint64_t from, uint32_t bytes) {
  if (((to | from | bytes) & 15u) == 0) return warp_copy(global<void>(to), global<const void>(from), bytes);
  for (uint32_t i = lane_id(); i < bytes; i += kWarpSize)
    global<uint8_t>(to)[i] = global<const uint8_t>(from)[i];
}

/// One row and its companions into a slot. Callers: the warp.
MORI_DEVICE void send(const EpDispatchArgs& a, uint64_t buffer, uint32_t rank, uint64_t slot,
                      uint64_t token) {
  copy_row(a.large != 0, global<char>(buffer + a.receive.rows) + slot * a.row_bytes,
           global<const char>(a.x) + token * a.row_bytes, a.row_bytes);
  const int32_t* expert_rank = global<const int32_t>(a.experts.rank);
  for (uint32_t k = lane_id(); k < a.topk; k += kWarpSize) {
    const int64_t id = load_id(a.ids, a.id_bytes, token * a.topk + k);
    const int64_t there = id >= 0 && uint32_t(expert_rank[id]) == rank ? id : -1;
    const uint64_t at = slot * a.topk + k;
    if (a.id_bytes == 4) {
      global<int32_t>(buffer + a.receive.ids)[at] = int32_t(there);
    } else {
      global<int64_t>(buffer + a.receive.ids)[at] = there;
    }
    if (a.weights != 0) {
      global<float>(buffer + a.receive.weights)[at] = global<const float>(a.weights)[token * a.topk + k];
    }
  }
  if (a.scales != 0) {
    copy_scales(buffer + a.receive.scales + slot * a.scale.bytes, a.scales + token * a.scale.bytes,
                a.scale.bytes);
  }
  if (lane_id() == 0) {
    global<int64_t>(buffer + a.receive.sources)[slot] = int64_t(uint64_t(a.world.rank) << 32 | token);
  }
}

MORI_DEVICE void copy(const EpDispatchArgs& a, const DispatchBlock& block) {
  const uint32_t ranks = a.world.world_size;
  uint32_t* cursors = block.warp_cursors(ranks);
  const uint64_t* masks = global<const uint64_t>(a.routing.masks);
  uint32_t* positions = global<uint32_t>(a.routing.positions);
  const TokenRange range = my_tokens(a);
  for (uint32_t token = range.first; token < range.last; ++token) {
    const uint64_t mask = masks[token];
    // Start at a rank of this warp's own, so that not all warps write to the same peer.
    const uint32_t turn = (a.world.rank + global_warp()) % ranks;
    const uint64_t upper = mask & (~uint64_t(0) << turn);
    for (uint32_t half = 0; half < 2; ++half) {
      for (uint64_t left = half == 0 ? upper : mask & ~upper; left != 0; left &= left - 1) {
        const uint32_t rank = first_bit(left);
        const uint32_t slot = cursors[rank];
        send(a, block.destination[rank], rank, slot, token);
        if (lane_id() == 0) {
          positions[uint64_t(token) * a.fan + bits_below(mask, rank)] =
              block.sent_before[rank] + slot - block.first_slot[rank];
        }
      }
    }
    sync_warp();  // all lanes have read their slots
    for (uint32_t rank = lane_id(); rank < ranks; rank += kWarpSize)
      cursors[rank] += uint32_t(mask >> rank) & 1u;
    sync_warp();
  }
  finish_large_copies();
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace

MORI_KERNEL(ep_dispatch, EpDispatchArgs, 512) {
  EpLocal* local = global<EpLocal>(args.local);
  const DispatchBlock block(args.world.world_size);
  const uint64_t epoch = load_relaxed<Scope::device>(&local->dispatch_epoch) + 1;

  // Until the routes are written the handle says so, whatever happens to this launch.
  if (block_id() == 0 && block_lane() == 0) global<int64_t>(args.routing.header)[0] = -1;
  count(args, block);
  if (last_block<Scope::device>(&local->arrivals[0], block.flag)) announce(args, block, epoch);
  if (!wait_all(Block{block.flag}, args.world, args.shared.counts_signal, epoch, Wait::dispatch_counts))
    return;
  const bool accepted = plan(args, block);
  if (block_id() == 0) write_routing(args, accepted, epoch);
  if (accepted) copy(args, block);
  if (!last_block<Scope::system>(&local->arrivals[1], block.flag)) return;
  signal_all(Block{block.flag}, args.world, args.shared.rows_signal, epoch);
  if (!wait_all(Block{block.flag}, args.world, args.shared.rows_signal, epoch, Wait::dispatch_rows)) return;
  if (block_lane() == 0) {
    store_relaxed<Scope::device>(&local->dispatch_epoch, epoch);
    if (!accepted) {
      fail(args.world, Wait::none, Refusal(*block.refused_by), block.refusal[0], block.refusal[1],
           block.refusal[2]);
    }
  }
}

}  // namespace mori
