// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Many small copies in one launch: warps take pieces in turn. Source and destination may be memory of this
// GPU, of another one, or pinned host memory; they do not overlap. Nothing is signalled: the end of the
// kernel publishes the bytes, and the host learns of it from an event.
#include "src/core/device/collective.hpp"
#include "src/io/backends/p2p/copy_args.hpp"

namespace mori {

MORI_KERNEL(io_copy, IoCopyArgs, 256) {
  const bool inlined = args.count <= kIoCopyInline;
  for (uint64_t i = global_warp(); i < args.count; i += grid_warps()) {
    const IoCopyPiece piece = inlined ? args.inlined[i] : global<const IoCopyPiece>(args.pieces)[i];
    copy(Warp{}, global<char>(piece.to), global<const char>(piece.from), size_t(piece.bytes));
  }
}

}  // namespace mori
