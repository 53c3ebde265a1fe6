// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The body of every combine kernel: every rank returns the rows it received, and each owner sums what came
// back for its tokens.
// Nobody meets (docs/ep.md, "Combine"):
//   announce   one warp tells every rank which call it has begun: the digest of it, and credit for its buffer
//   return     senders: a few rows to their owner, then a flag for each (ep_combine_send.hpp)
//   reduce     everybody else, and senders when they are done: tokens in order, each as soon as its rows have
//              come: fp32 sum in ascending rank order from the bias, rounded once (ep_combine_reduce.hpp)
#pragma once
#include "src/ops/ep/ep_combine_reduce.hpp"
#include "src/ops/ep/ep_combine_send.hpp"

namespace mori {
namespace {
inline namespace MORI_TARGET_NAMESPACE {

/// Rows of this warp or block, if it is one that sends. Callers: the block. False: a peer did not come.
template <class Rows>
MORI_DEVICE bool send(const EpCombineArgs& a, const CombineTurn& turn, const CombineBlock& block) {
  if (!turn.routed || a.world.world_size == 1 || block_id() >= a.senders) return true;
  if (a.second_buffer == 0) {  // what is written was read in the previous call: its reader must have ended it
    const Agreement agreement = await_agreement(a, turn);
    if (!Block{block.flag}.all(agreement.came)) return false;
    if (agreement.differing != 0) return true;
  }
  if (a.by_block != 0) {
    return_rows<Rows>(a, turn, block, Block{block.flag}, block_id(), a.senders);
  } else if (warp_id() < a.sender_warps) {
    // neighbours in the order of rows are in different blocks
    return_rows<Rows>(a, turn, block, Warp{}, warp_id() * a.senders + block_id(), a.senders * a.sender_warps);
  }
  return true;
}

/// Advances the epoch once every block has read it, and sets back what the next call counts with. Callers:
/// the block, after a sync_block() behind the reading.
MORI_DEVICE void advance(const EpCombineArgs& a, uint64_t epoch) {
  EpLocal* local = global<EpLocal>(a.local);
  if (block_lane() + kWarpSize != block_lanes()) return;  // the first lane of the last warp
  if (fetch_add_acq_rel<Scope::device>(&local->combine_started, 1u) + 1 != grid_blocks()) return;
  store_relaxed<Scope::device>(&local->combine_started, 0u);
  store_relaxed<Scope::device>(&local->combine_tickets[(epoch + 1) & 1u], uint64_t(0));
  store_relaxed<Scope::device>(&local->combine_epoch, epoch);
}

/// What is wrong, told by the warp that announced. Callers: one lane.
MORI_DEVICE void refuse(const EpCombineArgs& a, const CombineTurn& turn, uint64_t differing) {
  if (!turn.routed) {
    fail(a.world, Wait::none, Refusal::stale, a.world.rank, a.tokens,
         uint64_t(global<const int64_t>(a.routing.header)[0]));
  } else if (differing != 0) {
    fail(a.world, Wait::none, Refusal::mismatch, first_bit(differing), turn.digest, 0);
  }
}

template <class Rows>
MORI_DEVICE void reduce(const EpCombineArgs& a, const CombineTurn& turn, const CombineBlock& block) {
  const Agreement agreement = await_agreement(a, turn);
  if (!agreement.came) return;
  note_time(a.trace, kTraceCounted);
  if (block_id() == grid_blocks() - 1 && block_lane() == 0) refuse(a, turn, agreement.differing);
  if (agreement.differing != 0 || !turn.routed || a.tokens == 0) return;
  const CombineCut cut(a, a.hidden / Rows::kPiece);
  const uint64_t items = uint64_t(a.tokens) * cut.parts;
  uint64_t index = a.tickets == 0 ? global_warp() : next_item(a, turn.epoch, 0);
  for (; index < items; index = next_item(a, turn.epoch, index)) {
    const CombineItem item = list_terms<Rows>(a, turn, block, cut, index);
    if (!await_rows(a, turn, item)) return;
    note_time(a.trace, kTraceReceived);
    Rows::sum(a, item);
  }
}

template <class Rows>
MORI_DEVICE void combine(const EpCombineArgs& a) {
  note_time(a.trace, kTraceStart);
  const CombineBlock block(a.world.world_size);
  const CombineTurn turn = combine_turn(a);
  const bool sends = (a.phases & kEpSend) != 0, receives = (a.phases & kEpReceive) != 0;
  // The last block sends last, if at all: announcing costs it a release.
  if (sends && block_id() == grid_blocks() - 1 && warp_id() == 0) announce(a, turn);
  load_routes(a, turn, block, Rows::bytes(a));
  note_time(a.trace, kTracePlanned);
  if (sends && !send<Rows>(a, turn, block)) return;
  note_time(a.trace, kTracePublished);
  if (!receives) return;
  advance(a, turn.epoch);
  reduce<Rows>(a, turn, block);
  note_time(a.trace, kTraceDone);
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace
}  // namespace mori
