// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Combine: what a block knows before it sends or sums: where rows lie here and at their owners, and whether
// the ranks agree about the call (docs/ep.md, "Combine").
#pragma once
#include "src/core/device/numeric.hpp"
#include "src/ops/ep/ep_device.hpp"

namespace mori {
inline namespace MORI_TARGET_NAMESPACE {

/// One summand of a token: a row somewhere in this rank's memory, and what it is multiplied by.
struct CombineTerm {
  uint64_t address;
  float weight;
  uint32_t position;  ///< in the combine buffer
};

/// The block's shared memory.
struct CombineBlock {
  uint32_t* flag;
  uint64_t* sent_before;  ///< [1] rows of mine that lower ranks hold: where mine begin in my combine buffer
  uint64_t* begins;       ///< [R + 1] rows received from ranks below s
  uint64_t* owner_rows;   ///< [R] where my rows begin in each owner's combine buffer, as mapped here
  uint64_t* owner_flags;  ///< [R] and their flags
  CombineTerm* terms;     ///< [warps][terms of a warp]

  MORI_DEVICE explicit CombineBlock(uint32_t ranks) {
    uint64_t* words = shared_memory<uint64_t>();
    flag = reinterpret_cast<uint32_t*>(words);
    sent_before = words + 1;
    begins = words + 2;
    owner_rows = begins + ranks + 1;
    owner_flags = owner_rows + ranks;
    terms = reinterpret_cast<CombineTerm*>(words + (3 * ranks + 4) / 2 * 2);  // 16-byte aligned
  }
  MORI_DEVICE CombineTerm* warp_terms(const EpCombineArgs& a) const { return terms + warp_id() * a.terms; }
};

/// Whether the handle is of a dispatch that went well, with as many tokens and no more rows, of a dispatcher
/// like this.
MORI_DEVICE bool has_routes(const EpCombineArgs& a) {
  const int64_t* header = global<const int64_t>(a.routing.header);
  return header[0] == int64_t(a.tokens) && header[1] <= int64_t(a.row_count) &&
         uint64_t(header[3]) == a.stamp;
}

/// Ranks that take part in this turn.
MORI_DEVICE uint64_t active_ranks(const EpCombineArgs& a) {
  const uint64_t all = ~uint64_t(0) >> (kMaxRanks - a.world.world_size);
  return a.active == 0 ? all : all & global<const uint64_t>(a.active)[0];
}

/// What must be equal on all ranks: the shape of rows, of which dispatch they are, and who takes part. A rank
/// without routes has nothing to return, so that its peers have nothing to sum.
MORI_DEVICE uint32_t digest_of(const EpCombineArgs& a, bool routed, uint64_t active) {
  const uint64_t epoch = uint64_t(global<const int64_t>(a.routing.header)[2]);
  const uint64_t mixed = (a.digest ^ active) * 0x9e3779b97f4a7c15u ^ epoch * 0xd6e8feb86659fd93u;
  return routed ? uint32_t(mixed ^ mixed >> 32) | 1u : 0;
}

/// One turn, as a block sees it.
struct CombineTurn {
  uint64_t epoch;
  uint64_t active;
  uint64_t rows;   ///< heap offset of this call's combine buffer
  uint64_t flags;  ///< heap offset of this call's row flags
  uint32_t digest;
  bool routed;
};

MORI_DEVICE CombineTurn combine_turn(const EpCombineArgs& a) {
  CombineTurn turn;
  turn.epoch = load_relaxed<Scope::device>(&global<EpLocal>(a.local)->combine_epoch) + 1;
  turn.active = active_ranks(a);
  turn.routed = has_routes(a);
  turn.digest = digest_of(a, turn.routed, turn.active);
  const uint64_t odd = turn.epoch & 1u;
  turn.rows = a.shared.combine_rows + odd * a.second_buffer;
  turn.flags = a.shared.combine_flags + odd * a.second_flags;
  return turn;
}

/// Callers: the block. Ends with sync_block().
MORI_DEVICE void load_routes(const EpCombineArgs& a, const CombineTurn& turn, const CombineBlock& block,
                             uint64_t row_bytes) {
  const uint32_t ranks = a.world.world_size;
  const int64_t* received = global<const int64_t>(a.routing.received);
  const int64_t* sent = global<const int64_t>(a.routing.sent);
  for (uint32_t s = block_lane(); s < ranks && turn.routed; s += block_lanes()) {
    const uint64_t position = uint64_t(global<const int64_t>(a.routing.returns)[s]);
    const uint64_t base = global<const uint64_t>(a.world.bases)[s];
    uint64_t before = 0, end = 0, lower = 0;
    for (uint32_t i = 0; i < ranks; ++i) {
      if (i < s) before += uint64_t(received[i]);
      if (i <= s) end += uint64_t(received[i]);
      if (i < s) lower += uint64_t(sent[i]);
    }
    block.begins[s] = before;
    if (s + 1 == ranks) block.begins[ranks] = end;
    if (s == a.world.rank) *block.sent_before = lower;
    block.owner_rows[s] = base + turn.rows + position * row_bytes;
    block.owner_flags[s] = base + turn.flags + position * sizeof(uint64_t);
  }
  sync_block();
}

// ---- agreement -----------------------------------------------------------------------------------------

/// An announcement is one tagged word: which call, and the digest of what must be equal.
MORI_DEVICE uint64_t announcements(const EpCombineArgs& a, uint64_t epoch) {
  return a.shared.combine_announcements + (epoch & 1u) * 8ull * a.world.world_size;
}

/// Tells every rank that I have begun this call: so my combine buffer of it is free. Callers: the warp.
MORI_DEVICE void announce(const EpCombineArgs& a, const CombineTurn& turn) {
  MORI_NO_UNROLL
  for (uint32_t i = lane_id(); i < a.world.world_size; i += kWarpSize) {
    const uint32_t peer = (a.world.rank + 1 + i) % a.world.world_size;
    if ((turn.active >> peer & 1u) == 0) continue;
    store_tagged(peer_pointer<uint64_t>(a.world, peer, announcements(a, turn.epoch)) + a.world.rank,
                 tag_of(turn.epoch), turn.digest);
  }
}

struct Agreement {
  bool came;           ///< every rank has announced this call
  uint64_t differing;  ///< ranks that announced another one
};

/// Waits for all announcements. Callers: the warp. Orders: acquire, for all lanes of the warp.
MORI_DEVICE Agreement await_agreement(const EpCombineArgs& a, const CombineTurn& turn) {
  const uint64_t* mine = peer_pointer<const uint64_t>(a.world, a.world.rank, announcements(a, turn.epoch));
  const uint64_t tag = tag_of(turn.epoch);
  bool came = true;
  uint64_t differing = 0;
  for (uint32_t peer = lane_id(); peer < a.world.world_size && came; peer += kWarpSize) {
    if ((turn.active >> peer & 1u) == 0) continue;
    uint64_t seen;
    came = wait_for<kStartIsOrdered ? Order::relaxed : Order::acquire, Scope::system>(
        a.world, mine + peer, [tag](uint64_t word) { return word >> 32 == tag; }, turn.epoch,
        Wait::combine_rows, peer, seen);
    if (uint32_t(seen) != turn.digest) differing |= uint64_t(1) << peer;
  }
  came = Warp::all(came);
  return {came, warp_or(differing)};
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori
