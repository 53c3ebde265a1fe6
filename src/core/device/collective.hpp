// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Who takes part in an operation, and what those lanes do together.
//
//   Thread{}  Warp{}  Block{flag}     a group: lane() lanes() sync() broadcast(bool) broadcast_word all(bool)
//   copy(group, to, from, bytes)      any size and alignment, as wide as the alignment allows
//   copy_shared(group, to, from, bytes)    the same to memory that other processors read and write
//   warp_sum  warp_or  warp_prefix    over the lanes of a warp
//
// A group is passed by value as the first argument. All its lanes make the same call with the same arguments.
#pragma once
#include "src/core/device/prelude.hpp"

namespace mori {
inline namespace MORI_TARGET_NAMESPACE {

/// The calling lane alone.
struct Thread {
  MORI_DEVICE static uint32_t lane() { return 0; }
  MORI_DEVICE static uint32_t lanes() { return 1; }
  MORI_DEVICE static void sync() {}
  MORI_DEVICE static bool broadcast(bool of_first) { return of_first; }
  MORI_DEVICE static uint64_t broadcast_word(uint64_t of_first) { return of_first; }
  MORI_DEVICE static bool all(bool predicate) { return predicate; }
};

/// The lanes of the calling lane's warp, all of them.
struct Warp {
  MORI_DEVICE static uint32_t lane() { return lane_id(); }
  MORI_DEVICE static uint32_t lanes() { return kWarpSize; }
  /// Orders: earlier accesses of all lanes before later ones of all lanes; so do the two below.
  MORI_DEVICE static void sync() { sync_warp(); }
  /// Lane 0's argument.
  MORI_DEVICE static bool broadcast(bool of_first) {
    const bool value = (ballot(of_first) & 1u) != 0;
    sync_warp();
    return value;
  }
  MORI_DEVICE static uint64_t broadcast_word(uint64_t of_first) {
    const uint64_t value = shuffle(of_first, 0);
    sync_warp();
    return value;
  }
  MORI_DEVICE static bool all(bool predicate) {
    const bool value = ballot(!predicate) == 0;
    sync_warp();
    return value;
  }
};

/// The lanes of the calling lane's block, all of them. `flag` is a word of the block's shared memory that
/// nothing else uses meanwhile; broadcast() and all() write it.
struct Block {
  uint32_t* flag;

  MORI_DEVICE static uint32_t lane() { return block_lane(); }
  MORI_DEVICE static uint32_t lanes() { return block_lanes(); }
  MORI_DEVICE static void sync() { sync_block(); }
  MORI_DEVICE bool broadcast(bool of_first) const {
    if (lane() == 0) *flag = of_first;
    sync();
    const bool value = *flag != 0;
    sync();  // the flag may be written again
    return value;
  }
  MORI_DEVICE uint64_t broadcast_word(uint64_t of_first) const {
    uint64_t value = 0;
    for (uint32_t shift = 0; shift < 64; shift += 32) {
      if (lane() == 0) *flag = uint32_t(of_first >> shift);
      sync();
      value |= uint64_t(*flag) << shift;
      sync();
    }
    return value;
  }
  MORI_DEVICE bool all(bool predicate) const {
    if (lane() == 0) *flag = 1;
    sync();
    if (!predicate) store_relaxed<Scope::block>(flag, 0u);
    sync();
    const bool value = load_relaxed<Scope::block>(flag) != 0;
    sync();
    return value;
  }
};

/// Bitwise or over the warp. Callers: the warp.
MORI_DEVICE uint64_t warp_or(uint64_t value) {
  for (uint32_t step = kWarpSize / 2; step != 0; step /= 2) value |= shuffle(value, lane_id() ^ step);
  return value;
}
/// Sum over the warp. Callers: the warp.
MORI_DEVICE uint64_t warp_sum(uint64_t value) {
  for (uint32_t step = kWarpSize / 2; step != 0; step /= 2) value += shuffle(value, lane_id() ^ step);
  return value;
}

/// Sum over the lanes up to this one, itself included. Callers: the warp.
MORI_DEVICE uint32_t warp_prefix(uint32_t value) {
  for (uint32_t step = 1; step < kWarpSize; step *= 2) {
    const uint32_t lower = shuffle(value, (lane_id() - step) & (kWarpSize - 1));
    if (lane_id() >= step) value += lower;
  }
  return value;
}

// What is copied was written as some other type; the compiler must not conclude that it was not.
struct __attribute__((__may_alias__, __aligned__(16))) AnyVec16 {
  uint32_t x, y, z, w;
};
using AnyWord64 __attribute__((__may_alias__)) = uint64_t;
using AnyWord32 __attribute__((__may_alias__)) = uint32_t;
using AnyWord16 __attribute__((__may_alias__)) = uint16_t;
using AnyByte = unsigned char;
template <size_t kBytes>
struct AnyPiece;
template <>
struct AnyPiece<1> {
  using Type = AnyByte;
};
template <>
struct AnyPiece<2> {
  using Type = AnyWord16;
};
template <>
struct AnyPiece<4> {
  using Type = AnyWord32;
};
template <>
struct AnyPiece<8> {
  using Type = AnyWord64;
};

/// How copy() reads: through all caches, or what a peer has written meanwhile.
struct CachedLoads {
  template <class Piece>
  MORI_DEVICE static Piece load(const Piece* p) {
    return *p;
  }
};
struct FreshLoads {
  template <class Piece>
  MORI_DEVICE static Piece load(const Piece* p) {
    return load_fresh(p);
  }
};

/// Both addresses and `bytes` are multiples of the size of Piece. Callers: the group.
template <class Piece, class Loads, class Group>
MORI_DEVICE void copy_pieces(const Group& group, char* to, const char* from, size_t bytes) {
  MORI_NO_UNROLL
  for (size_t i = group.lane() * sizeof(Piece); i < bytes; i += group.lanes() * sizeof(Piece)) {
    *reinterpret_cast<Piece*>(to + i) = Loads::load(reinterpret_cast<const Piece*>(from + i));
  }
}

/// Fewer than 16 bytes; an aligned word is written whole. Callers: the group.
template <class Loads, class Group>
MORI_DEVICE void copy_edge(const Group& group, char* to, const char* from, size_t bytes) {
  const uint64_t alignment =
      reinterpret_cast<uint64_t>(to) | reinterpret_cast<uint64_t>(from) | uint64_t(bytes);
  if ((alignment & 7u) == 0) {
    copy_pieces<AnyWord64, Loads>(group, to, from, bytes);
  } else if ((alignment & 3u) == 0) {
    copy_pieces<AnyWord32, Loads>(group, to, from, bytes);
  } else {
    copy_pieces<AnyByte, Loads>(group, to, from, bytes);
  }
}

/// A 16-byte aligned destination; the source is a multiple of the size of Piece away from that. Stores are of
/// 16 bytes all the same: over a link every store is a packet, loads are from caches. Callers: the group.
template <class Piece, class Loads, class Group>
MORI_DEVICE void copy_gathered(const Group& group, char* to, const char* from, size_t bytes) {
  struct Pieces {
    Piece piece[sizeof(vec16) / sizeof(Piece)];
  };
  MORI_NO_UNROLL
  for (size_t i = group.lane() * sizeof(vec16); i < bytes; i += group.lanes() * sizeof(vec16)) {
    Pieces gathered;
    MORI_UNROLL
    for (uint32_t k = 0; k < sizeof(vec16) / sizeof(Piece); ++k) {
      gathered.piece[k] = Loads::load(reinterpret_cast<const Piece*>(from + i) + k);
    }
    store_streaming(reinterpret_cast<vec16*>(to + i), __builtin_bit_cast(vec16, gathered));
  }
}

/// Both sides 16-byte aligned, `bytes` a multiple of 16. Callers: the group.
template <uint32_t kUnroll, class Loads, class Group>
MORI_DEVICE void copy_aligned(const Group& group, char* to, const char* from, size_t bytes) {
  vec16* d = reinterpret_cast<vec16*>(to);
  const AnyVec16* s = reinterpret_cast<const AnyVec16*>(from);
  const size_t n = bytes / sizeof(vec16), lanes = group.lanes();
  size_t i = group.lane();
  MORI_NO_UNROLL  // it is, by hand
      for (; i + (kUnroll - 1) * lanes < n; i += kUnroll * lanes) {
    vec16 v[kUnroll];
    MORI_UNROLL
    for (uint32_t u = 0; u < kUnroll; ++u) v[u] = __builtin_bit_cast(vec16, Loads::load(s + i + u * lanes));
    MORI_UNROLL
    for (uint32_t u = 0; u < kUnroll; ++u) store_streaming(d + i + u * lanes, v[u]);
  }
  constexpr uint32_t kRest =
      2;  // predicated, so that a lane waits once for both: 1 KiB by a warp. More cost registers
  MORI_NO_UNROLL
  for (; i < n; i += kRest * lanes) {
    vec16 v[kRest];
    MORI_UNROLL
    for (uint32_t u = 0; u < kRest; ++u) {
      if (i + u * lanes < n) v[u] = __builtin_bit_cast(vec16, Loads::load(s + i + u * lanes));
    }
    MORI_UNROLL
    for (uint32_t u = 0; u < kRest; ++u) {
      if (i + u * lanes < n) store_streaming(d + i + u * lanes, v[u]);
    }
  }
}

/// Copies any number of bytes between any addresses that do not overlap; `to` is global memory, `from` may
/// be shared memory. Aligned words of 4 and 8 bytes are written whole.
/// Callers: the group. Orders: nothing; what other lanes wrote to `from` needs a sync() before, and so does
/// writing to `from` again afterwards.
template <class Loads = CachedLoads, class Group>
MORI_DEVICE void copy(const Group& group, void* to, const void* from, size_t bytes) {
  char* t = static_cast<char*>(to);
  const char* f = static_cast<const char*>(from);
#if defined(MORI_WARP_COPY_IS_MEMCPY)
  if (group.lanes() == 1) {
    if (bytes != 0) memcpy(t, f, bytes);
    return;
  }
#endif
  const uint64_t to_boundary = -reinterpret_cast<uint64_t>(t) & 15u;
  const size_t head = bytes < to_boundary ? bytes : size_t(to_boundary);
  const size_t body = (bytes - head) / 16 * 16;
  copy_edge<Loads>(group, t, f, head);
  const uint64_t skew = reinterpret_cast<uint64_t>(f + head) & 15u;
  if (skew == 0) {
    copy_aligned<8, Loads>(group, t + head, f + head, body);
  } else if ((skew & 7u) == 0) {
    copy_gathered<AnyWord64, Loads>(group, t + head, f + head, body);
  } else if ((skew & 3u) == 0) {
    copy_gathered<AnyWord32, Loads>(group, t + head, f + head, body);
  } else {
    copy_gathered<AnyByte, Loads>(group, t + head, f + head, body);
  }
  copy_edge<Loads>(group, t + head + body, f + head + body, bytes - head - body);
}

/// copy() into memory that other processors read. A CPU that stores into lines which others hold asks for
/// each of them, 3 to 30 times as slow as past the caches. `past` = false is copy(). Callers, orders: as
/// copy(); and finish_large_copies() before whatever tells the others.
template <class Loads = CachedLoads, class Group>
MORI_DEVICE void copy_shared(const Group& group, void* to, const void* from, size_t bytes,
                             [[maybe_unused]] bool past = true) {
#if defined(MORI_WARP_COPY_IS_MEMCPY)
  constexpr size_t kLeast = 2048;
  if (past && group.lanes() == 1 && bytes >= kLeast) return copy_past_cache(to, from, bytes);
#endif
  copy<Loads>(group, to, from, bytes);
}

/// Reads a row once and writes it to several places: `each(store)` calls store(to) for every one of them, the
/// same ones whenever it is asked. 16-byte aligned, `bytes` a multiple of 16; `large` as for
/// warp_copy_large(). Callers: the warp. Orders: as warp_copy(); finish_large_copies() follows the last one.
template <class Each>
MORI_DEVICE void warp_copy_to_each(bool large, const char* from, size_t bytes, Each each) {
#if defined(MORI_WARP_COPY_IS_MEMCPY)
  each([&](char* to) {
    if (large) return warp_copy_large(to, from, bytes);
    warp_copy(to, from, bytes);
  });
#else
  (void)large;
  constexpr uint32_t kUnroll = 7;  // 7168 bytes are two rounds of 32 lanes
  const vec16* s = reinterpret_cast<const vec16*>(from);
  const size_t n = bytes / sizeof(vec16);
  MORI_NO_UNROLL
  for (size_t i = lane_id(); i < n; i += kUnroll * kWarpSize) {
    vec16 v[kUnroll];
    MORI_UNROLL
    for (uint32_t u = 0; u < kUnroll; ++u) {
      if (i + u * kWarpSize < n) v[u] = load_streaming(s + i + u * kWarpSize);
    }
    each([&](char* to) {
      vec16* d = reinterpret_cast<vec16*>(to);
      MORI_UNROLL
      for (uint32_t u = 0; u < kUnroll; ++u) {
        if (i + u * kWarpSize < n) store_streaming(d + i + u * kWarpSize, v[u]);
      }
    });
  }
#endif
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori
