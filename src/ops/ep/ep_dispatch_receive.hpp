// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Dispatch, phase 6 of docs/ep.md. In the rank layout rows lie where they stay when they come: one block
// waits for all chunks. In the expert layouts a payload comes once, into the slot of its row's first
// selection here, and the receiver copies it into the others, chunk by chunk while the next ones are on their
// way.
#pragma once
#include "src/ops/ep/ep_dispatch_send.hpp"

namespace mori {
namespace {
inline namespace MORI_TARGET_NAMESPACE {

MORI_DEVICE uint32_t most_chunks(const EpDispatchArgs& a, const DispatchBlock& block) {
  uint32_t most = 0;
  for (uint32_t s = 0; s < a.world.world_size; ++s) {
    const uint32_t chunks = block.line(a, s)[kAnnounceChunks];
    if (chunks > most) most = chunks;
  }
  return most;
}

MORI_DEVICE const uint64_t* chunk_flag(const EpDispatchArgs& a, uint32_t source, uint32_t chunk) {
  return peer_pointer<const uint64_t>(a.world, a.world.rank, a.shared.chunk_flags) +
         uint64_t(source) * kEpMaxChunks + chunk;
}

/// Waits for every chunk. False in all lanes: the error word is set. Callers: one block.
MORI_DEVICE bool wait_for_chunks(const EpDispatchArgs& a, const DispatchBlock& block) {
  const uint32_t ranks = a.world.world_size, most = most_chunks(a, block);
  bool came = true;
  for (uint32_t i = block_lane(); i < ranks * most && came; i += block_lanes()) {
    const uint32_t source = i % ranks, chunk = i / ranks;
    if (chunk >= block.line(a, source)[kAnnounceChunks]) continue;
    came = wait_until(a.world, chunk_flag(a, source, chunk), *block.epoch, Wait::dispatch_rows, source);
  }
  return Block{block.flag}.all(came);
}

/// Scales from one slot to another. Callers: the warp.
MORI_DEVICE void copy_slot_scales(const EpDispatchArgs& a, uint64_t buffer, uint32_t from, uint32_t to) {
  const uint64_t source = scale_address(a, buffer, from), target = scale_address(a, buffer, to);
  const uint32_t element = a.scale.bytes / a.scale.columns;
  if (a.scale.column_bytes == element) return copy_scales(target, source, a.scale.bytes);
  for (uint32_t c = lane_id(); c < a.scale.columns; c += kWarpSize) {
    const uint64_t at = uint64_t(c) * a.scale.column_bytes;
    if (element == 4) {
      *global<uint32_t>(target + at) = *global<const uint32_t>(source + at);
    } else {
      *global<uint8_t>(target + at) = *global<const uint8_t>(source + at);
    }
  }
}

/// A row that has come, from the slot of its first selection to those of the others, and its routes into the
/// handle. Callers: the warp. Parts of a row as in AsIs.
MORI_DEVICE void spread_row(const EpDispatchArgs& a, uint64_t buffer, uint64_t row, uint32_t part,
                            uint32_t parts) {
  const int32_t* routes = global<const int32_t>(buffer + a.receive.routes) + row * a.topk;
  for (uint32_t k = lane_id(); k < a.topk && part == 0; k += kWarpSize) {
    global<int32_t>(a.routing.routes)[row * a.topk + k] = routes[k];
  }
  uint32_t first = 0;
  while (first < a.topk && routes[first] < 0) ++first;
  if (first == a.topk) return;
  const uint32_t slot = uint32_t(routes[first]);
  const uint64_t packs = a.row_bytes / sizeof(vec16);
  const uint64_t begin = packs * part / parts * sizeof(vec16),
                 end = packs * (part + 1) / parts * sizeof(vec16);
  char* payloads = global<char>(buffer + a.receive.rows) + begin;
  uint32_t more = first + 1;
  while (more < a.topk && routes[more] < 0) ++more;
  if (more == a.topk) return;  // a single selection here
  warp_copy_to_each(a.large != 0, payloads + slot * a.row_bytes, end - begin, [&](auto store) {
    for (uint32_t k = more; k < a.topk; ++k) {
      if (routes[k] >= 0) store(payloads + uint64_t(routes[k]) * a.row_bytes);
    }
  });
  if (a.scale.bytes == 0 || part != 0) return;
  for (uint32_t k = more; k < a.topk; ++k) {
    if (routes[k] >= 0) copy_slot_scales(a, buffer, slot, uint32_t(routes[k]));
  }
}

/// The next chunk of this block: its turn, or whoever comes first. Callers: the block.
MORI_DEVICE uint64_t next_chunk(const EpDispatchArgs& a, const DispatchBlock& block, uint64_t in_turn) {
  if (a.tickets == 0) return in_turn;
  if (block_lane() == 0) {
    *block.ticket = uint32_t(fetch_add_relaxed<Scope::device>(
        &global<EpLocal>(a.local)->dispatch_tickets[*block.epoch & 1u], uint64_t(1)));
  }
  sync_block();
  const uint32_t ticket = *block.ticket;
  sync_block();  // it may be written again
  return ticket;
}

/// Waits for chunks and spreads them, sharing them with the other blocks that make copies.
/// False in all lanes: the error word is set. Callers: the block.
MORI_DEVICE bool spread_chunks(const EpDispatchArgs& a, const DispatchBlock& block, uint32_t index,
                               uint32_t blocks) {
  const uint32_t ranks = a.world.world_size, me = a.world.rank, most = most_chunks(a, block);
  const uint64_t buffer = block.destination[me];
  for (uint64_t i = next_chunk(a, block, index); i < ranks * most; i = next_chunk(a, block, i + blocks)) {
    const uint32_t source = uint32_t((me + i) % ranks), chunk = uint32_t(i / ranks);  // as they come
    if (chunk >= block.line(a, source)[kAnnounceChunks]) continue;
    const bool came = block_lane() != 0 || wait_until(a.world, chunk_flag(a, source, chunk), *block.epoch,
                                                      Wait::dispatch_rows, source);
    if (!Block{block.flag}.broadcast(came)) return false;
    const uint64_t range =
        global<const uint64_t>(buffer + a.receive.ranges)[uint64_t(source) * kEpMaxChunks + chunk];
    const uint32_t rows = uint32_t(range), first = block.source_row[source] + uint32_t(range >> 32);
    if (rows == 0) continue;
    const uint32_t most_parts = AsIs::most_parts(a), wanted = warps_per_block() / rows;
    const uint32_t parts = wanted < 1 ? 1 : wanted < most_parts ? wanted : most_parts;
    for (uint32_t unit = warp_id(); unit < rows * parts; unit += warps_per_block())
      spread_row(a, buffer, first + unit / parts, unit % parts, parts);
  }
  finish_large_copies();
  return true;
}

/// Zeros behind the rows of each of my experts, up to the next one's. Callers: the block.
MORI_DEVICE void pad_groups(const EpDispatchArgs& a, const DispatchBlock& block, uint32_t index,
                            uint32_t blocks) {
  const uint64_t buffer = block.destination[a.world.rank];
  const uint32_t element = a.scale.bytes == 0 ? 0 : a.scale.bytes / a.scale.columns;
  for (uint32_t expert = index; expert < a.experts_per_rank; expert += blocks) {
    const uint32_t begin = block.offsets[expert] + block.counts[expert], end = block.offsets[expert + 1];
    for (uint32_t slot = begin + warp_id(); slot < end; slot += warps_per_block()) {
      vec16* row = global<vec16>(buffer + a.receive.rows + slot * a.row_bytes);
      for (uint64_t i = lane_id(); i < a.row_bytes / sizeof(vec16); i += kWarpSize)
        store_streaming(row + i, vec16{});
      const uint64_t scales = scale_address(a, buffer, slot);
      for (uint32_t c = lane_id(); c < a.scale.columns && element != 0; c += kWarpSize) {
        for (uint32_t byte = 0; byte < element; ++byte)
          global<uint8_t>(scales + uint64_t(c) * a.scale.column_bytes)[byte] = 0;
      }
    }
  }
}

/// Callers: the block. Blocks behind the senders only make copies; senders join them when they are done.
template <bool kByExpert>
MORI_DEVICE void receive(const EpDispatchArgs& a, const DispatchBlock& block) {
  if constexpr (!kByExpert) {
    if (block_id() != 0 || !wait_for_chunks(a, block)) return;
    note_time(a.trace, kTraceReceived);
  } else {
    const bool both = (a.phases & kEpSend) == 0 || a.senders == grid_blocks();
    const uint32_t first = both ? 0 : a.senders;
    if (block_id() >= first && a.placement == EpPlacement::grouped && a.zero_padding != 0)
      pad_groups(a, block, block_id() - first, grid_blocks() - first);
    if (!spread_chunks(a, block, block_id() - first, grid_blocks() - first)) return;
    note_time(a.trace, kTraceDone);
  }
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace
}  // namespace mori
