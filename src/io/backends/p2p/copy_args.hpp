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

/// Pieces that travel in the argument block itself: a small transfer then reads nothing over PCIe but data.
inline constexpr uint32_t kIoCopyInline = 8;

/// Pieces that a block takes from the table at a time, into its shared memory.
inline constexpr uint32_t kIoCopyTile = 64;

struct IoCopyArgs {
  uint64_t pieces;  ///< IoCopyPiece[count], pinned host memory; unused if count <= kIoCopyInline
  uint64_t count;
  IoCopyPiece inlined[kIoCopyInline];
};
static_assert(sizeof(IoCopyArgs) == 16 + 24 * kIoCopyInline, "layout");

}  // namespace mori
