// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Many small copies in one launch. Source and destination may be memory of this GPU, of another one, or
// pinned host memory; they do not overlap. Nothing is signalled: the end of the kernel publishes the bytes,
// and the host learns of it from a mark behind it in the stream.
//
// Each block has its own part of the table and reads it in tiles with all lanes: the table is host memory,
// where the number of reads is what costs, so that a warp that fetched its pieces one by one would wait for
// PCIe.
#include "src/core/device/collective.hpp"
#include "src/io/backends/p2p/copy_args.hpp"

namespace mori {
namespace {
inline namespace MORI_TARGET_NAMESPACE {

MORI_DEVICE void copy_piece(const IoCopyPiece& piece) {
  copy(Warp{}, global<char>(piece.to), global<const char>(piece.from), size_t(piece.bytes));
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace

MORI_KERNEL(io_copy, IoCopyArgs, 256) {
  if (args.count <= kIoCopyInline) {
    for (uint64_t i = global_warp(); i < args.count; i += grid_warps()) copy_piece(args.inlined[i]);
    return;
  }
  constexpr uint32_t kWords = sizeof(IoCopyPiece) / sizeof(uint64_t);
  uint64_t* tile = shared_memory<uint64_t>();
  const uint64_t* table = global<const uint64_t>(args.pieces);
  const uint64_t last = args.count * (block_id() + 1) / grid_blocks();
  for (uint64_t first = args.count * block_id() / grid_blocks(); first < last; first += kIoCopyTile) {
    const uint32_t count = last - first < kIoCopyTile ? uint32_t(last - first) : kIoCopyTile;
    for (uint32_t i = block_lane(); i < count * kWords; i += block_lanes())
      tile[i] = table[first * kWords + i];
    sync_block();
    for (uint32_t i = warp_id(); i < count; i += warps_per_block()) {
      copy_piece({tile[i * kWords], tile[i * kWords + 1], tile[i * kWords + 2]});
    }
    sync_block();  // the tile is written again
  }
}

}  // namespace mori
