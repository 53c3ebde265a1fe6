// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Remote memory access: put, get, p, g and their strided and non-blocking forms.
//
// `dest` of a put and `source` of a get are symmetric: addresses in my heap that stand for `pe`'s copy. The
// other one is any memory of this device. Any alignment; aligned words of 4 and 8 bytes arrive whole. With 0
// elements pointers are not used. No operation orders anything but what it says.
#pragma once
#include "src/shmem/queue_rma.hpp"
#include "src/shmem/transport.hpp"

namespace mori::shmem {
inline namespace MORI_TARGET_NAMESPACE {

/// Whether `bytes` between these addresses are one aligned Word, which moves as an atomic access, so that it
/// may be waited for.
template <class Word>
MORI_DEVICE bool is_word(const void* to, const void* from, size_t bytes) {
  const uint64_t addresses = reinterpret_cast<uint64_t>(to) | reinterpret_cast<uint64_t>(from);
  return bytes == sizeof(Word) && addresses % sizeof(Word) == 0;
}

/// Callers: the group. `from` may be any memory; `to` is a PE's.
template <class Group>
MORI_DEVICE void write_peer(const Group& group, void* to, const void* from, size_t bytes) {
  const bool first = group.lane() == 0;
  if (is_word<uint64_t>(to, from, bytes)) {
    if (first)
      store_relaxed<Scope::system>(static_cast<AnyWord64*>(to), *static_cast<const AnyWord64*>(from));
  } else if (is_word<uint32_t>(to, from, bytes)) {
    if (first)
      store_relaxed<Scope::system>(static_cast<AnyWord32*>(to), *static_cast<const AnyWord32*>(from));
  } else {
    copy(group, to, from, bytes);
  }
}
/// The other way; `from` is looked at anew.
template <class Group>
MORI_DEVICE void read_peer(const Group& group, void* to, const void* from, size_t bytes) {
  const bool first = group.lane() == 0;
  if (is_word<uint64_t>(to, from, bytes)) {
    if (first)
      *static_cast<AnyWord64*>(to) = load_relaxed<Scope::system>(static_cast<const AnyWord64*>(from));
  } else if (is_word<uint32_t>(to, from, bytes)) {
    if (first)
      *static_cast<AnyWord32*>(to) = load_relaxed<Scope::system>(static_cast<const AnyWord32*>(from));
  } else {
    copy<FreshLoads>(group, to, from, bytes);
  }
}
/// One element of a PE's, looked at anew. Callers: one lane.
template <class T>
MORI_DEVICE T read_element(const T* from) {
  constexpr size_t kEach = alignof(T) < 8 ? alignof(T) : 8;
  using Word = typename AnyPiece<kEach>::Type;
  struct Pieces {
    Word piece[sizeof(T) / kEach];
  } pieces;
  MORI_UNROLL
  for (uint32_t i = 0; i < sizeof(T) / kEach; ++i) {
    pieces.piece[i] = FreshLoads::load(reinterpret_cast<const Word*>(from) + i);
  }
  return __builtin_bit_cast(T, pieces);
}

// ---- put -----------------------------------------------------------------------------------------------

/// Callers: the group. With kWaits the source may be written again behind a group.sync().
template <bool kWaits, class Group>
MORI_DEVICE void put_bytes(const Group& group, const Ctx& ctx, void* dest, const void* source, size_t bytes,
                           uint32_t pe) {
  if (bytes == 0) return;
  reach(
      ctx, static_cast<char*>(dest), pe, [&](char* theirs) { write_peer(group, theirs, source, bytes); },
      [&] {
        if (group.lane() != 0) return;
        const uint64_t position = queue_put(ctx, dest, source, bytes, pe);
        if (kWaits) queue_wait(ctx, pe, position);
      });
}

/// Writes `bytes` from `source` to `pe`'s copy of `dest`. The source must stay until quiet().
/// Callers: the group; sync() before if other lanes wrote the source.
template <class Group>
MORI_DEVICE void putmem_nbi(const Group& group, const Ctx& ctx, void* dest, const void* source, size_t bytes,
                            uint32_t pe) {
  put_bytes<false>(group, ctx, dest, source, bytes, pe);
}
/// The same, and any lane of the group may write to the source when it returns.
template <class Group>
MORI_DEVICE void putmem(const Group& group, const Ctx& ctx, void* dest, const void* source, size_t bytes,
                        uint32_t pe) {
  put_bytes<true>(group, ctx, dest, source, bytes, pe);
  group.sync();
}
/// putmem_nbi() of `nelems` elements.
template <class Group, class T>
MORI_DEVICE void put_nbi(const Group& group, const Ctx& ctx, T* dest, const T* source, size_t nelems,
                         uint32_t pe) {
  putmem_nbi(group, ctx, dest, source, nelems * sizeof(T), pe);
}
/// putmem() of `nelems` elements.
template <class Group, class T>
MORI_DEVICE void put(const Group& group, const Ctx& ctx, T* dest, const T* source, size_t nelems,
                     uint32_t pe) {
  putmem(group, ctx, dest, source, nelems * sizeof(T), pe);
}

// ---- get -----------------------------------------------------------------------------------------------

/// Callers: the group. With kWaits the bytes are there behind a group.sync().
template <bool kWaits, class Group>
MORI_DEVICE void get_bytes(const Group& group, const Ctx& ctx, void* dest, const void* source, size_t bytes,
                           uint32_t pe) {
  if (bytes == 0) return;
  reach(
      ctx, static_cast<const char*>(source), pe,
      [&](const char* theirs) { read_peer(group, dest, theirs, bytes); },
      [&] {
        if (group.lane() != 0) return;
        const uint64_t position = queue_get(ctx, dest, source, bytes, pe);
        if (kWaits) queue_wait(ctx, pe, position);
      });
}

/// Reads `bytes` of `pe`'s copy of `source` into `dest`, which holds them after quiet().
/// Callers: the group.
template <class Group>
MORI_DEVICE void getmem_nbi(const Group& group, const Ctx& ctx, void* dest, const void* source, size_t bytes,
                            uint32_t pe) {
  get_bytes<false>(group, ctx, dest, source, bytes, pe);
}
/// The same, and all lanes of the group see the bytes in `dest` when it returns.
template <class Group>
MORI_DEVICE void getmem(const Group& group, const Ctx& ctx, void* dest, const void* source, size_t bytes,
                        uint32_t pe) {
  get_bytes<true>(group, ctx, dest, source, bytes, pe);
  group.sync();
}
template <class Group, class T>
MORI_DEVICE void get_nbi(const Group& group, const Ctx& ctx, T* dest, const T* source, size_t nelems,
                         uint32_t pe) {
  getmem_nbi(group, ctx, dest, source, nelems * sizeof(T), pe);
}
template <class Group, class T>
MORI_DEVICE void get(const Group& group, const Ctx& ctx, T* dest, const T* source, size_t nelems,
                     uint32_t pe) {
  getmem(group, ctx, dest, source, nelems * sizeof(T), pe);
}

// ---- one element ---------------------------------------------------------------------------------------

/// Writes a value to `pe`'s copy of `dest`. Callers: one lane.
template <class T>
MORI_DEVICE void p(const Ctx& ctx, T* dest, T value, uint32_t pe) {
  reach(
      ctx, dest, pe, [&](T* theirs) { write_peer(Thread{}, theirs, &value, sizeof(T)); },
      [&] {
        T copied = value;  // here, so that the value itself needs no address
        queue_put_value(ctx, dest, &copied, sizeof(T), pe);
      });
}
/// Reads `pe`'s copy of `source`. Callers: one lane. A value of zeros where there is no way to `pe`.
template <class T>
[[nodiscard]] MORI_DEVICE T g(const Ctx& ctx, const T* source, uint32_t pe) {
  T value{};
  reach(
      ctx, source, pe, [&](const T* theirs) { read_peer(Thread{}, &value, theirs, sizeof(T)); },
      [&] {
        T came{};
        queue_get_value(ctx, &came, source, sizeof(T), pe);
        value = came;
      });
  return value;
}

// ---- strided -------------------------------------------------------------------------------------------

/// Element i from source[i * sst] to `pe`'s dest[i * dst]; strides in elements, at least 1. Callers: the
/// group. The source must stay until quiet().
template <class Group, class T>
MORI_DEVICE void iput_nbi(const Group& group, const Ctx& ctx, T* dest, const T* source, ptrdiff_t dst,
                          ptrdiff_t sst, size_t nelems, uint32_t pe) {
  if (nelems == 0) return;
  reach(
      ctx, dest, pe,
      [&](T* theirs) {
        for (size_t i = group.lane(); i < nelems; i += group.lanes())
          theirs[ptrdiff_t(i) * dst] = source[ptrdiff_t(i) * sst];
      },
      [&] {
        for (size_t i = group.lane(); i < nelems; i += group.lanes())
          queue_put_value(ctx, dest + ptrdiff_t(i) * dst, source + ptrdiff_t(i) * sst, sizeof(T), pe);
      });
}
template <class Group, class T>
MORI_DEVICE void iput(const Group& group, const Ctx& ctx, T* dest, const T* source, ptrdiff_t dst,
                      ptrdiff_t sst, size_t nelems, uint32_t pe) {
  iput_nbi(group, ctx, dest, source, dst, sst, nelems, pe);
  group.sync();
}
/// One request for each element.
template <class Group, class T>
MORI_DEVICE void get_elements(const Group& group, const Ctx& ctx, T* dest, const T* source, ptrdiff_t dst,
                              ptrdiff_t sst, size_t nelems, uint32_t pe) {
  for (size_t i = group.lane(); i < nelems; i += group.lanes())
    queue_get(ctx, dest + ptrdiff_t(i) * dst, source + ptrdiff_t(i) * sst, sizeof(T), pe);
}
/// Element i from `pe`'s source[i * sst] to dest[i * dst]. Callers: the group. There after quiet().
template <class Group, class T>
MORI_DEVICE void iget_nbi(const Group& group, const Ctx& ctx, T* dest, const T* source, ptrdiff_t dst,
                          ptrdiff_t sst, size_t nelems, uint32_t pe) {
  if (nelems == 0) return;
  reach(
      ctx, source, pe,
      [&](const T* theirs) {
        for (size_t i = group.lane(); i < nelems; i += group.lanes())
          dest[ptrdiff_t(i) * dst] = read_element(theirs + ptrdiff_t(i) * sst);
      },
      [&] { get_elements(group, ctx, dest, source, dst, sst, nelems, pe); });
}
template <class Group, class T>
MORI_DEVICE void iget(const Group& group, const Ctx& ctx, T* dest, const T* source, ptrdiff_t dst,
                      ptrdiff_t sst, size_t nelems, uint32_t pe) {
  iget_nbi(group, ctx, dest, source, dst, sst, nelems, pe);
  if (nelems != 0 && has_queue(ctx.world, pe)) queue_quiet(ctx, pe, ctx.world.world_size, false);
  group.sync();
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori::shmem
