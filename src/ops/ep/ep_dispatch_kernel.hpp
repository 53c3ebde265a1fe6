// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The body of every dispatch kernel: its phases in their order (docs/ep.md).
#pragma once
#include "src/ops/ep/ep_dispatch_receive.hpp"

namespace mori {
namespace {
inline namespace MORI_TARGET_NAMESPACE {

/// Counts, announces, plans and sends. False in all lanes: nothing is to be received.
template <bool kByExpert, class Payload>
MORI_DEVICE bool send_phase(const EpDispatchArgs& a, const DispatchBlock& block) {
  const bool sender = block_id() < a.senders;
  const uint32_t mine = sender ? block_id() : a.senders;  // others: behind the last token
  const Batch batch = batch_at(a, block_begin(a, mine), sender ? block_begin(a, mine + 1) : a.tokens);
  note_time(a.trace, kTraceStart);
  if (!count_for_block<kByExpert>(a, block, batch)) return false;
  if (block_id() + 1 == a.senders) announce<kByExpert>(a, block);
  note_time(a.trace, kTraceCounted);
  if (!read_announcements<kByExpert>(a, block)) return false;
  const bool accepted = plan<kByExpert>(a, block);
  note_time(a.trace, kTracePlanned);
  if (block_id() == 0) write_routing<kByExpert>(a, block, accepted);
  if (!accepted && block_id() == 0 && block_lane() == 0) {
    fail(a.world, Wait::none, Refusal(*block.refused_by), block.refusal[0], block.refusal[1],
         block.refusal[2]);
  }
  if (accepted && sender) send_all<kByExpert, Payload>(a, block, batch);
  return accepted;
}

template <bool kByExpert, class Payload>
MORI_DEVICE void dispatch(const EpDispatchArgs& a) {
  const DispatchBlock block(a);
  const bool awaited =
      (a.phases & kEpSend) != 0 ? send_phase<kByExpert, Payload>(a, block) : recall<kByExpert>(a, block);
  if (awaited && (a.phases & kEpReceive) != 0) receive<kByExpert>(a, block);
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace
}  // namespace mori
