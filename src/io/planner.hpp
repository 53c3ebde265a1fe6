// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Turns what a caller asks for into segments that a backend likes: inside both memories, ascending in the
// remote offset, neighbours merged; and cuts or deals them out. Pure functions, linear in the number of
// blocks: 10^6 of them are milliseconds, and input that is in order already is not sorted.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "src/io/types.hpp"

namespace mori::io {

/// Block i is bytes[i] (or bytes[0] if it is the only one) at local[i] and remote[i].
struct Ranges {
  std::span<const int64_t> local;
  std::span<const int64_t> remote;
  std::span<const int64_t> bytes;
};

/// What may be addressed: `*_bytes` bytes, which begin at `*_base` of what the backends know.
struct Window {
  uint64_t local_bytes = 0;
  uint64_t remote_bytes = 0;
  uint64_t local_base = 0;
  uint64_t remote_base = 0;
};

struct Plan {
  std::vector<Segment> segments;
  uint64_t bytes = 0;
};

/// Checks, sorts and merges. Blocks of no bytes are left out. Throws core::ConfigError that names the
/// argument, the index, the value and what is allowed.
Plan make_plan(const Ranges& ranges, const Window& window);

/// Stable. Returns at once if the segments are ascending; otherwise a radix sort over the bits in which the
/// offsets differ.
void sort_by_remote(std::vector<Segment>& segments);

/// Joins each segment with the next where both their local and their remote ranges touch.
void merge_neighbours(std::vector<Segment>& segments);

/// The same bytes in pieces of at most `max_bytes` (> 0).
std::vector<Segment> cut(std::span<const Segment> segments, uint64_t max_bytes);

/// Deals the segments out to rails, bytes in proportion to `weights` (>= 0, not all 0) within one `granule`
/// (> 0). Each rail gets a run in the order given; a segment is cut only at multiples of `granule` from its
/// start.
std::vector<std::vector<Segment>> split(std::span<const Segment> segments, std::span<const double> weights,
                                        uint64_t granule);

/// Whether each byte of `part` is one of `whole`, with the same local and remote place, and no destination is
/// there twice: what a backend hands back after a failure must be.
bool is_part_of(Op op, std::vector<Segment> part, std::vector<Segment> whole);

uint64_t total_bytes(std::span<const Segment> segments);

}  // namespace mori::io
