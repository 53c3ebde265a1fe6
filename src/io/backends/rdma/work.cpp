// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/backends/rdma/work.hpp"

#include <algorithm>

namespace mori::io::rdma {

Work::Work(JobPtr owner, std::shared_ptr<const LocalMemory> memory, RdmaRoute& to, uint64_t piece_bytes)
    : job(std::move(owner)),
      segments(job->segments()),
      local(std::move(memory)),
      route(to),
      write(job->op() == Op::write),
      piece_bytes_(piece_bytes) {}

Range Work::carve(uint64_t limit, size_t max_pieces, std::vector<Piece>& pieces) {
  pieces.clear();
  const bool old = !retry_.empty();
  Range from = old ? retry_.back() : Range{segment_, offset_, UINT64_MAX};
  limit = std::min(limit, from.bytes);
  Range out{from.segment, from.offset, 0};
  uint64_t segment = from.segment, offset = from.offset;
  while (segment < segments.size() && pieces.size() < max_pieces && out.bytes < limit) {
    const Segment& s = segments[segment];
    if (!pieces.empty() && s.remote + offset != remote_offset(out) + out.bytes) break;
    const uint64_t bytes = std::min(s.bytes - offset, limit - out.bytes);
    pieces.push_back({s.local + offset, bytes});
    out.bytes += bytes;
    offset += bytes;
    if (offset == s.bytes) {
      ++segment;
      offset = 0;
    }
  }
  if (!old) {
    segment_ = segment;
    offset_ = offset;
  } else if (out.bytes == from.bytes) {
    retry_.pop_back();
  } else {
    retry_.back() = {segment, offset, from.bytes - out.bytes};
  }
  return out;
}

void Work::append(std::vector<Segment>& out, Range range) const {
  while (range.bytes > 0 && range.segment < segments.size()) {
    const Segment& s = segments[range.segment];
    const uint64_t bytes = std::min(s.bytes - range.offset, range.bytes);
    out.push_back({s.local + range.offset, s.remote + range.offset, bytes});
    range.bytes -= bytes;
    range.offset = 0;
    ++range.segment;
  }
}

std::vector<Segment> Work::unfinished() const {
  std::vector<Segment> out;
  for (const Range& range : retry_) append(out, range);
  append(out, {segment_, offset_, UINT64_MAX});
  return out;
}

}  // namespace mori::io::rdma
