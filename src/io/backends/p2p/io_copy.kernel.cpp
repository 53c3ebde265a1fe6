// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Many copies in one launch. Source and destination may be memory of this GPU, of another one, or pinned host
// memory; they do not overlap. Pieces of any sizes are cut into chunks, and chunks are what blocks and warps
// share evenly.
//
// A long table is host memory, where the number of reads is what costs: the host has worked out where each
// block's share begins, and a block reads its part in tiles with all lanes.
//
// The end is told by the kernel itself: each block adds itself to `arrivals` behind its copies, the last one
// writes the mark. That saves the stream's own write behind the kernel, whose fence takes tens of
// microseconds while another stream copies.
#include "src/core/device/collective.hpp"
#include "src/io/backends/p2p/copy_args.hpp"

namespace mori {
namespace {
inline namespace MORI_TARGET_NAMESPACE {

/// Copies the chunks at, at + stride, ... of a piece, those before `end`, and counts on to the next piece:
/// `at` is then counted from there. Callers: the warp.
MORI_DEVICE void copy_chunks(const IoCopyPiece& piece, uint64_t shift, uint64_t stride, uint64_t chunks,
                             uint64_t end, uint64_t& at) {
  const uint64_t until = end < chunks ? end : chunks;
  for (; at < until; at += stride) {
    const uint64_t offset = at << shift, chunk = uint64_t(1) << shift;
    const uint64_t left = piece.bytes - offset;
    copy(Warp{}, global<char>(piece.to + offset), global<const char>(piece.from + offset),
         size_t(left < chunk ? left : chunk));
  }
  if (end > chunks) at -= chunks;
}

MORI_DEVICE uint64_t chunks_of(uint64_t bytes, uint64_t shift) {
  return (bytes + (uint64_t(1) << shift) - 1) >> shift;
}

/// All pieces stand in the arguments: the whole grid walks through them.
MORI_DEVICE void copy_inlined(const IoCopyArgs& args) {
  uint64_t at = global_warp();
  for (uint64_t i = 0; i < args.count; ++i) {
    const IoCopyPiece& piece = args.inlined[i];
    copy_chunks(piece, args.chunk_shift, grid_warps(), chunks_of(piece.bytes, args.chunk_shift), ~uint64_t(0),
                at);
  }
}

/// This block's share of the table. Callers: the block.
MORI_DEVICE void copy_share(const IoCopyArgs& args) {
  constexpr uint32_t kWords = sizeof(IoCopyPiece) / sizeof(uint64_t);
  const IoCopyShare share = global<const IoCopyShare>(args.shares)[block_id()];
  uint64_t* tile = shared_memory<uint64_t>();
  const uint64_t* table = global<const uint64_t>(args.pieces);
  uint64_t at = share.chunk + warp_id(), end = share.chunk + share.chunks;
  bool more = share.chunks != 0;
  for (uint64_t first = share.piece; more; first += kIoCopyTile) {
    const uint32_t count = args.count - first < kIoCopyTile ? uint32_t(args.count - first) : kIoCopyTile;
    for (uint32_t i = block_lane(); i < count * kWords; i += block_lanes())
      tile[i] = table[first * kWords + i];
    sync_block();
    for (uint32_t i = 0; i < count && more; ++i) {
      const IoCopyPiece piece{tile[i * kWords], tile[i * kWords + 1], tile[i * kWords + 2]};
      const uint64_t chunks = chunks_of(piece.bytes, args.chunk_shift);
      copy_chunks(piece, args.chunk_shift, warps_per_block(), chunks, end, at);
      more = end > chunks;
      end -= chunks;
    }
    sync_block();  // the tile is written again
  }
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace

MORI_KERNEL(io_copy, IoCopyArgs, 256) {
  if (args.count <= kIoCopyInline) {
    copy_inlined(args);
  } else {
    copy_share(args);
  }
  if (args.mark == 0) return;
  sync_block();
  if (block_lane() != 0) return;
  uint64_t* arrivals = global<uint64_t>(args.arrivals);
  if (grid_blocks() > 1) {
    // System scope: the bytes may be another GPU's or the host's.
    if (fetch_add_acq_rel<Scope::system>(arrivals, uint64_t(1)) + 1 < grid_blocks()) return;
    store_relaxed<Scope::system>(arrivals, uint64_t(0));
  }
  store_release<Scope::system>(global<uint64_t>(args.mark), args.mark_value);
}

}  // namespace mori
