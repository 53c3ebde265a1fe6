// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Argument block of the gather/scatter kernel (io_copy.kernel.cpp): the same bytes on the host and on every
// target.
#pragma once
#include <stdint.h>

namespace mori {

/// One contiguous copy. Addresses are those of the GPU that runs the kernel.
struct IoCopyPiece {
  uint64_t to;
  uint64_t from;
  uint64_t bytes;
};

/// A block's share of the table: `chunks` of them, from chunk `chunk` of piece `piece` on.
struct IoCopyShare {
  uint64_t piece;
  uint64_t chunk;
  uint64_t chunks;
};

/// Pieces that travel in the argument block itself: a small transfer then reads nothing over PCIe but data.
inline constexpr uint32_t kIoCopyInline = 32;

/// Pieces that a block takes from the table at a time, into its shared memory.
inline constexpr uint32_t kIoCopyTile = 64;

struct IoCopyArgs {
  uint64_t pieces;  ///< IoCopyPiece[count], pinned host memory; unused if count <= kIoCopyInline
  uint64_t shares;  ///< IoCopyShare[blocks], likewise
  uint64_t count;
  uint64_t arrivals;  ///< uint64 in device memory, 0 before and after: blocks that are done
  uint64_t mark;      ///< uint64 that gets `mark_value` when all bytes are in place; 0: nobody asks
  uint64_t mark_value;
  uint64_t chunk_shift;  ///< a warp copies 1 << chunk_shift bytes of a piece at a time
  IoCopyPiece inlined[kIoCopyInline];
};
static_assert(sizeof(IoCopyArgs) == 56 + 24 * kIoCopyInline, "layout");

}  // namespace mori
