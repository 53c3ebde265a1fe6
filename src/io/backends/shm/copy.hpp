// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Copying lists of blocks between two mappings of this process. Two kernels: memcpy, which leaves the
// destination in the caches, and streaming stores, which do not read the destination first and so move a
// third less through memory. Jobs that exceed a core's own cache are streamed.
#pragma once
#include <cstdint>
#include <span>

#include "src/io/types.hpp"

namespace mori::io::shm {

enum class Copy { cached, streaming };

/// What to use for a job of `bytes` in all.
Copy choose_copy(uint64_t bytes);

/// Copies each segment from `source` to `target`; for a write the source is local, for a read remote. All
/// stores are visible to other processors before what the caller stores next.
void copy_segments(Copy copy, Op op, uint8_t* local, uint8_t* remote, std::span<const Segment> segments);

}  // namespace mori::io::shm
