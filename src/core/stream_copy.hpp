// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Copies past the caches of an x86 processor. Stores that bypass the cache do not read the line first, a
// third of the traffic of a large copy; the C library uses them only for single copies larger than the cache.
// SSE2 is part of x86-64; with AVX-512 a store fills a line, which is faster while the source is in a cache.
// Blocks that are copied one after the other name the next one, so that its beginning is fetched meanwhile.
//
// ThreadSanitizer does not see such stores: there, and elsewhere, it is memcpy.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
#define MORI_STREAM_COPY 1
#include <immintrin.h>
#endif

namespace mori::core {

#if defined(MORI_STREAM_COPY)

namespace stream {

inline constexpr size_t kLine = 64;
inline constexpr size_t kAhead = 1024;  // bytes that the source is fetched ahead, across blocks

/// What is read `kAhead` after from[at]: of this block, or of the next one. Beyond an end is harmless.
inline const char* ahead(const uint8_t* from, size_t at, size_t bytes, const uint8_t* next) {
  const uint8_t* where = at + kAhead < bytes ? from + at + kAhead : next + (at + kAhead - bytes);
  return reinterpret_cast<const char*>(where);
}

// Whole lines to an aligned destination; they return the bytes copied.

inline size_t lines_sse2(uint8_t* to, const uint8_t* from, size_t bytes, const uint8_t* next) {
  size_t at = 0;
  for (; bytes - at >= kLine; at += kLine) {
    _mm_prefetch(ahead(from, at, bytes, next), _MM_HINT_NTA);
    for (size_t part = at; part < at + kLine; part += 16) {
      _mm_stream_si128(reinterpret_cast<__m128i*>(to + part),
                       _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + part)));
    }
  }
  return at;
}

__attribute__((target("avx512f"))) inline size_t lines_avx512(uint8_t* to, const uint8_t* from, size_t bytes,
                                                              const uint8_t* next) {
  size_t at = 0;
  for (; bytes - at >= kLine; at += kLine) {
    _mm_prefetch(ahead(from, at, bytes, next), _MM_HINT_NTA);
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to + at), _mm512_loadu_si512(from + at));
  }
  return at;
}

inline const bool has_avx512 = __builtin_cpu_supports("avx512f") != 0;

}  // namespace stream

/// Any number of bytes between any addresses; `next` is what will be copied after it, if anything.
/// Orders: nothing, stream_fence() comes before the store that tells others.
inline void stream_copy(void* to, const void* from, size_t bytes, const void* next = nullptr) {
  auto* t = static_cast<uint8_t*>(to);
  auto* f = static_cast<const uint8_t*>(from);
  size_t head = (stream::kLine - reinterpret_cast<uintptr_t>(t) % stream::kLine) % stream::kLine;
  if (head > bytes) head = bytes;
  if (head > 0) memcpy(t, f, head);
  const auto lines = stream::has_avx512 ? stream::lines_avx512 : stream::lines_sse2;
  const auto* after = next == nullptr ? f : static_cast<const uint8_t*>(next);
  const size_t done = head + lines(t + head, f + head, bytes - head, after);
  if (done < bytes) memcpy(t + done, f + done, bytes - done);
}
inline void stream_fence() { _mm_sfence(); }  // a release store does not order such stores

#else

inline void stream_copy(void* to, const void* from, size_t bytes, const void* = nullptr) {
  if (bytes > 0) memcpy(to, from, bytes);
}
inline void stream_fence() {}

#endif

}  // namespace mori::core
