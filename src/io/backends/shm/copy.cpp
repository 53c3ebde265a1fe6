// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The copy kernels.
#include "src/io/backends/shm/copy.hpp"

#include <unistd.h>

#include <cstring>

#include "src/core/stream_copy.hpp"

namespace mori::io::shm {
namespace {

// Shorter blocks do not amortise the partly filled lines at their ends.
constexpr uint64_t kStreamBlock = 2048;

uint64_t core_cache_bytes() {
  const long bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
  return bytes > 0 ? static_cast<uint64_t>(bytes) : 1u << 20;
}

}  // namespace

Copy choose_copy(uint64_t bytes) {
  static const uint64_t limit = core_cache_bytes();
  return bytes > limit ? Copy::streaming : Copy::cached;
}

void copy_segments(Copy copy, Op op, uint8_t* local, uint8_t* remote, std::span<const Segment> segments) {
  const auto source = [&](const Segment& s) { return op == Op::write ? local + s.local : remote + s.remote; };
  const auto target = [&](const Segment& s) { return op == Op::write ? remote + s.remote : local + s.local; };
  for (const Segment& s : segments) {
    if (copy == Copy::cached || s.bytes < kStreamBlock) {
      memcpy(target(s), source(s), s.bytes);
    } else {
      const Segment& next = &s == &segments.back() ? s : *(&s + 1);
      core::stream_copy(target(s), source(s), s.bytes, source(next));
    }
  }
  if (copy == Copy::streaming) core::stream_fence();
}

}  // namespace mori::io::shm
