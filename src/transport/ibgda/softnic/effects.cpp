// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/transport/ibgda/softnic/effects.hpp"

#include <algorithm>
#include <cstring>

namespace mori::ibgda {
namespace {

template <class T>
T* at(uint64_t address) {
  return reinterpret_cast<T*>(address);
}

/// Addition in fields: a bit of `boundary` is the last of a field and carries nothing on.
template <class T>
T add_in_fields(T left, T right, T boundary) {
  if (boundary == 0) return T(left + right);
  T sum = 0, carry = 0;
  for (uint32_t i = 0; i < 8 * sizeof(T); ++i) {
    const T bits = T((left >> i & 1) + (right >> i & 1) + carry);
    sum |= T((bits & 1) << i);
    carry = (boundary >> i & 1) != 0 ? T(0) : T(bits >> 1);
  }
  return sum;
}

template <class T>
T change(uint64_t address, const Request& r) {
  T* word = at<T>(address);
  T old = __atomic_load_n(word, __ATOMIC_ACQUIRE);
  for (;;) {
    T next = old;
    switch (r.op) {
      case Op::fetch_add:
        next = T(old + T(r.value));
        break;
      case Op::masked_fetch_add:
        next = add_in_fields(old, T(r.value), T(r.compare_mask));
        break;
      case Op::compare_swap:
        if (old != T(r.compare)) return old;
        next = T(r.value);
        break;
      default:
        if (((old ^ T(r.compare)) & T(r.compare_mask)) != 0) return old;
        next = T((old & T(~r.value_mask)) | (T(r.value) & T(r.value_mask)));
    }
    if (__atomic_compare_exchange_n(word, &old, next, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) return old;
  }
}

}  // namespace

void move_bytes(uint64_t to, uint64_t from, uint64_t bytes) {
  const uint64_t both = to | from;
  if (bytes == 8 && both % 8 == 0) {
    __atomic_store_n(at<uint64_t>(to), __atomic_load_n(at<uint64_t>(from), __ATOMIC_ACQUIRE),
                     __ATOMIC_RELEASE);
  } else if (bytes == 4 && both % 4 == 0) {
    __atomic_store_n(at<uint32_t>(to), __atomic_load_n(at<uint32_t>(from), __ATOMIC_ACQUIRE),
                     __ATOMIC_RELEASE);
  } else {
    std::memcpy(at<void>(to), at<void>(from), bytes);
  }
}

void place_bytes(uint64_t to, const unsigned char* payload, uint64_t bytes) {
  if (bytes == 8 && to % 8 == 0) {
    uint64_t word;
    std::memcpy(&word, payload, 8);
    __atomic_store_n(at<uint64_t>(to), word, __ATOMIC_RELEASE);
  } else if (bytes == 4 && to % 4 == 0) {
    uint32_t word;
    std::memcpy(&word, payload, 4);
    __atomic_store_n(at<uint32_t>(to), word, __ATOMIC_RELEASE);
  } else {
    std::memcpy(at<void>(to), payload, bytes);
  }
}

void scatter_bytes(uint64_t to, uint64_t from, uint64_t bytes, uint64_t seed) {
  const uint64_t pieces = 2 + seed % 7, start = seed >> 8, piece = (bytes / pieces + 8) / 8 * 8;
  for (uint64_t i = 0; i < pieces; ++i) {
    const uint64_t begin = (start + pieces - i) % pieces * piece;
    if (begin < bytes)
      std::memcpy(at<char>(to + begin), at<char>(from + begin), std::min(piece, bytes - begin));
  }
}

uint64_t change_word(uint64_t address, const Request& request) {
  return request.length == 8 ? change<uint64_t>(address, request) : change<uint32_t>(address, request);
}

void deliver_word(uint64_t to, uint64_t word, uint32_t bytes) {
  if (bytes == 8) {
    __atomic_store_n(at<uint64_t>(to), word, __ATOMIC_RELEASE);
  } else {  // these NICs return fetched words of 4 bytes as they travel
    __atomic_store_n(at<uint32_t>(to), __builtin_bswap32(uint32_t(word)), __ATOMIC_RELEASE);
  }
}

}  // namespace mori::ibgda
