// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The copy kernels. SSE2 is part of x86-64; where the processor has AVX-512 a store fills a line, which is
// faster while source or destination are in a cache.
#include "src/io/backends/shm/copy.hpp"

#include <unistd.h>

#include <cstring>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace mori::io::shm {
namespace {

#if defined(__SSE2__)
constexpr uint64_t kLine = 64;
constexpr uint64_t kAhead = 1024;  // bytes that the source is prefetched ahead, across blocks
constexpr uint64_t kStreamBlock =
    2048;  // shorter blocks do not amortise the partly filled lines at their ends

/// What is read `kAhead` after from[at]: of this block, or of the next one. Beyond an end is harmless.
inline const char* ahead(const uint8_t* from, uint64_t at, uint64_t bytes, const uint8_t* next) {
  return reinterpret_cast<const char*>(at + kAhead < bytes ? from + at + kAhead
                                                           : next + (at + kAhead - bytes));
}

/// Whole lines of a block to an aligned destination: returns the bytes written.
using StreamLines = uint64_t (*)(uint8_t* to, const uint8_t* from, uint64_t bytes, const uint8_t* next);

uint64_t stream_lines_sse2(uint8_t* to, const uint8_t* from, uint64_t bytes, const uint8_t* next) {
  uint64_t at = 0;
  for (; bytes - at >= kLine; at += kLine) {
    _mm_prefetch(ahead(from, at, bytes, next), _MM_HINT_NTA);
    for (uint64_t part = at; part < at + kLine; part += 16) {
      _mm_stream_si128(reinterpret_cast<__m128i*>(to + part),
                       _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + part)));
    }
  }
  return at;
}

__attribute__((target("avx512f"))) uint64_t stream_lines_avx512(uint8_t* to, const uint8_t* from,
                                                                uint64_t bytes, const uint8_t* next) {
  uint64_t at = 0;
  for (; bytes - at >= kLine; at += kLine) {
    _mm_prefetch(ahead(from, at, bytes, next), _MM_HINT_NTA);
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to + at), _mm512_loadu_si512(from + at));
  }
  return at;
}

const StreamLines stream_lines = __builtin_cpu_supports("avx512f") ? stream_lines_avx512 : stream_lines_sse2;

void stream(uint8_t* to, const uint8_t* from, uint64_t bytes, const uint8_t* next) {
  const uint64_t head = (kLine - reinterpret_cast<uintptr_t>(to) % kLine) % kLine;  // less than kStreamBlock
  if (head > 0) memcpy(to, from, head);
  const uint64_t done = head + stream_lines(to + head, from + head, bytes - head, next);
  if (done < bytes) memcpy(to + done, from + done, bytes - done);
}
#endif

uint64_t core_cache_bytes() {
  const long bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
  return bytes > 0 ? static_cast<uint64_t>(bytes) : 1u << 20;
}

}  // namespace

Copy choose_copy([[maybe_unused]] uint64_t bytes) {
#if defined(__SSE2__)
  static const uint64_t limit = core_cache_bytes();
  if (bytes > limit) return Copy::streaming;
#endif
  return Copy::cached;
}

void copy_segments([[maybe_unused]] Copy copy, Op op, uint8_t* local, uint8_t* remote,
                   std::span<const Segment> segments) {
#if defined(__SSE2__)
  if (copy == Copy::streaming) {
    const auto source = [&](const Segment& s) {
      return op == Op::write ? local + s.local : remote + s.remote;
    };
    for (const Segment& s : segments) {
      uint8_t* to = op == Op::write ? remote + s.remote : local + s.local;
      const uint8_t* from = source(s);
      if (s.bytes >= kStreamBlock) {
        const Segment& next = &s == &segments.back() ? s : *(&s + 1);
        stream(to, from, s.bytes, source(next));
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
