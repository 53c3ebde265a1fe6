// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The copy kernels. SSE2 is part of x86-64, so no run-time choice of an instruction set is needed; wider
// streaming stores measured the same.
#include "src/io/backends/shm/copy.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace mori::io::shm {
namespace {

#if defined(__SSE2__)
constexpr uint64_t kLine = 64;
constexpr uint64_t kAhead = 1024;  // bytes that the source is prefetched ahead
constexpr uint64_t kStreamBlock =
    2048;  // shorter blocks do not amortise the partly filled lines at their ends

void stream(uint8_t* to, const uint8_t* from, uint64_t bytes) {
  const uint64_t head = std::min(bytes, (kLine - reinterpret_cast<uintptr_t>(to) % kLine) % kLine);
  if (head > 0) memcpy(to, from, head);
  uint64_t at = head;
  for (; bytes - at >= kLine; at += kLine) {
    const uint8_t* source = from + at;
    uint8_t* target = to + at;
    _mm_prefetch(reinterpret_cast<const char*>(source + kAhead), _MM_HINT_NTA);  // beyond the end is harmless
    for (uint64_t part = 0; part < kLine; part += 16) {
      _mm_stream_si128(reinterpret_cast<__m128i*>(target + part),
                       _mm_loadu_si128(reinterpret_cast<const __m128i*>(source + part)));
    }
  }
  if (at < bytes) memcpy(to + at, from + at, bytes - at);
}
#endif

uint64_t last_cache_bytes() {
  const long bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
  return bytes > 0 ? static_cast<uint64_t>(bytes) : 16u << 20;
}

}  // namespace

Copy choose_copy([[maybe_unused]] uint64_t bytes) {
#if defined(__SSE2__)
  // Source, destination and what others keep there share the cache.
  static const uint64_t limit = last_cache_bytes() / 4;
  if (bytes > limit) return Copy::streaming;
#endif
  return Copy::cached;
}

void copy_segments([[maybe_unused]] Copy copy, Op op, uint8_t* local, uint8_t* remote,
                   std::span<const Segment> segments) {
#if defined(__SSE2__)
  if (copy == Copy::streaming) {
    for (const Segment& s : segments) {
      uint8_t* to = op == Op::write ? remote + s.remote : local + s.local;
      const uint8_t* from = op == Op::write ? local + s.local : remote + s.remote;
      if (s.bytes >= kStreamBlock) {
        stream(to, from, s.bytes);
      } else {
        memcpy(to, from, s.bytes);
      }
    }
    _mm_sfence();  // streaming stores are not ordered with others
    return;
  }
#endif
  if (op == Op::write) {
    for (const Segment& s : segments) memcpy(remote + s.remote, local + s.local, s.bytes);
  } else {
    for (const Segment& s : segments) memcpy(local + s.local, remote + s.remote, s.bytes);
  }
}

}  // namespace mori::io::shm
