// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// A place in a list of segments, for system calls that take part of it at a time.
#pragma once
#include <sys/uio.h>

#include <algorithm>
#include <cstdint>
#include <span>

#include "src/io/types.hpp"

namespace mori::io::tcp {

/// A run of bytes of a job's segments: from `skip` bytes into `segment` on.
struct Range {
  size_t segment = 0;
  uint64_t skip = 0;
  uint64_t bytes = 0;
};

class Cursor {
 public:
  Cursor() = default;
  /// `offset` is &Segment::local or &Segment::remote.
  Cursor(std::span<const Segment> segments, uint64_t Segment::* offset, const Range& range)
      : segments_(segments), offset_(offset), at_(range) {}

  uint64_t left() const { return at_.bytes; }
  const Range& rest() const { return at_; }

  /// The next pieces of memory at `base`, at most `most` of them and about `bytes` bytes.
  size_t fill(uint64_t base, iovec* out, size_t most, uint64_t bytes) const {
    Range at = at_;
    size_t count = 0;
    for (uint64_t sum = 0; count < most && at.bytes > 0 && sum < bytes; ++count) {
      const Segment& segment = segments_[at.segment];
      const uint64_t piece = std::min(segment.bytes - at.skip, at.bytes);
      out[count] = {reinterpret_cast<void*>(base + segment.*offset_ + at.skip), piece};
      sum += piece;
      at.bytes -= piece;
      ++at.segment;
      at.skip = 0;
    }
    return count;
  }

  void advance(uint64_t bytes) {
    at_.bytes -= bytes;
    at_.skip += bytes;
    while (at_.segment < segments_.size() && at_.skip >= segments_[at_.segment].bytes) {
      at_.skip -= segments_[at_.segment].bytes;
      ++at_.segment;
    }
  }

 private:
  std::span<const Segment> segments_;
  uint64_t Segment::* offset_ = &Segment::local;
  Range at_;
};

}  // namespace mori::io::tcp
