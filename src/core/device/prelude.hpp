// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The device prelude: one API for kernels, three targets. Include this and nothing of a vendor's.
//
//   MORI_KERNEL(name, Args, max_threads) { ... args ... }    a kernel over one argument struct of namespace
//   mori kWarpSize  lane_id warp_id warps_per_block block_id grid_blocks global_warp grid_warps sync_warp
//   sync_block  shuffle  ballot  any            by all lanes of the warp (block), never in divergent code
//   active_lanes()              those that are here together: ballot, shuffle, sync of diverged code
//   try_lock, unlock <Scope>    never in a loop that waits outside of the branch of success
//   load_/store_ relaxed, acquire, release <Scope>, fetch_add_*         ordered accesses of 4 and 8 bytes
//   fence_acq_rel, fence_seq_cst <Scope>                     order without an access; SHMEM's fence and quiet
//   wait_until(location, value, ...)                         bounded; false = the error word is set, leave
//   store_tagged, wait_tagged                                a word that is its own signal
//   warp_copy(to, from, bytes)                               16-byte aligned, by the whole warp
//   warp_copy_large, finish_large_copies                     the same past the caches, where that is faster
//
// Rules for kernels: they live inside namespace mori (CUDA has global ballot/any/all); loops are
// strided by kWarpSize and work for any warp size, 1 included; addresses are uint64_t in argument
// structs and become pointers through global<T>(). docs/device_prelude.md shows how to write one.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "src/core/device/world.hpp"

namespace mori {
enum class Order { relaxed, acquire, release, acq_rel };
enum class Scope { block, device, system };
/// What an atomic read-modify-write makes of a word.
enum class Modify { exchange, bit_and, bit_or, bit_xor };
}  // namespace mori

#if defined(__CUDACC__) && !defined(__HIP__)
#include "src/core/device/target_cuda.hpp"
#elif defined(__HIP__)
#include "src/core/device/target_hip.hpp"
#else
#include "src/core/device/target_cpu.hpp"
#endif

namespace mori {
inline namespace MORI_TARGET_NAMESPACE {

MORI_DEVICE uint32_t global_warp() { return block_id() * warps_per_block() + warp_id(); }
MORI_DEVICE uint32_t grid_warps() { return grid_blocks() * warps_per_block(); }
/// Index of this lane in its block, and the number of lanes in the block.
MORI_DEVICE uint32_t block_lane() { return warp_id() * kWarpSize + lane_id(); }
MORI_DEVICE uint32_t block_lanes() { return warps_per_block() * kWarpSize; }
MORI_DEVICE bool any(bool predicate) { return ballot(predicate) != 0; }

template <Scope S, class T>
MORI_DEVICE T load_relaxed(const T* p) {
  return atomic_load<Order::relaxed, S>(p);
}
/// Callers: every lane that then reads what the signal guards, or one lane followed by sync_block().
template <Scope S, class T>
MORI_DEVICE T load_acquire(const T* p) {
  return atomic_load<Order::acquire, S>(p);
}
template <Scope S, class T>
MORI_DEVICE void store_relaxed(T* p, T value) {
  atomic_store<Order::relaxed, S>(p, value);
}
/// Orders: all earlier writes of this lane, and of lanes it synchronised with, before the store.
template <Scope S, class T>
MORI_DEVICE void store_release(T* p, T value) {
  atomic_store<Order::release, S>(p, value);
}
template <Scope S, class T>
MORI_DEVICE T fetch_add_relaxed(T* p, T value) {
  return atomic_fetch_add<Order::relaxed, S>(p, value);
}
template <Scope S, class T>
MORI_DEVICE T fetch_add_acq_rel(T* p, T value) {
  return atomic_fetch_add<Order::acq_rel, S>(p, value);
}
/// Words of 4 and 8 bytes. Orders: nothing.
template <Modify M, Scope S, class T>
MORI_DEVICE T fetch_modify_relaxed(T* p, T value) {
  return atomic_fetch_modify<M, S>(p, value);
}
/// What was there; `desired` has taken its place if that is `expected`. Orders: nothing.
template <Scope S, class T>
MORI_DEVICE T compare_swap_relaxed(T* p, T expected, T desired) {
  return atomic_compare_swap<S>(p, expected, desired);
}

/// Takes a lock if it is free; never waits, since a lane of this warp may hold it: what the lock protects
/// goes into the branch of success, and a waiting loop around both. Callers: any lane.
template <Scope S>
MORI_DEVICE bool try_lock(uint32_t* lock) {
  return load_relaxed<S>(lock) == 0 && atomic_try_lock<S>(lock);
}
template <Scope S>
MORI_DEVICE void unlock(uint32_t* lock) {
  store_release<S>(lock, 0u);
}

MORI_DEVICE ErrorWord* error_word(const World& world) { return global<ErrorWord>(world.error); }

/// True when a wait of the context has failed or the host asked all waits to leave. Not after a refusal: all
/// ranks keep in step then.
MORI_DEVICE bool failed(const World& world) {
  const ErrorWord* e = error_word(world);
  return (load_relaxed<Scope::system>(&e->wait) | load_relaxed<Scope::system>(&e->abort)) != 0;
}

/// Records a failure; the first one wins. Callers: one lane. The host reads the fields after it has
/// seen state 2.
MORI_DEVICE_NOINLINE void fail(const World& world, Wait wait, Refusal refusal, uint64_t peer,
                               uint64_t expected, uint64_t seen) {
  ErrorWord* e = error_word(world);
  uint64_t clean = 0;
  if (!atomic_compare_exchange<Scope::system>(&e->state, clean, uint64_t(1))) return;
  store_relaxed<Scope::system>(&e->wait, uint64_t(wait));
  store_relaxed<Scope::system>(&e->refusal, uint64_t(refusal));
  store_relaxed<Scope::system>(&e->peer, peer);
  store_relaxed<Scope::system>(&e->expected, expected);
  store_relaxed<Scope::system>(&e->seen, seen);
  store_release<Scope::system>(&e->state, uint64_t(2));
}

/// Calls ready() until it is true. Callers: one lane; any number of lanes may wait, each for its own.
/// Fails: false on the deadline (the error word then holds what, peer, expected, and `seen` as ready() left
/// it), or within some milliseconds when the context has failed already.
template <class T, class Ready>
MORI_DEVICE bool poll_until(const World& world, Ready ready, uint64_t expected, Wait what, uint64_t peer,
                            const T& seen) {
  if (ready()) return true;
  const uint64_t start = clock_ticks();
  for (uint32_t iteration = 0;; ++iteration) {
    if (ready()) return true;
    pause(iteration);
    if ((iteration & 31u) != 31u) continue;
    if ((iteration & kFailureLookMask) == kFailureLookMask && failed(world)) return false;
    if (world.timeout_ticks != 0 && clock_ticks() - start > world.timeout_ticks) {
      fail(world, what, Refusal::none, peer, expected, uint64_t(seen));
      return false;
    }
  }
}

/// Polls *location until ready(value) holds, with loads of the given order. `seen` is the last value loaded.
/// Callers, fails: as poll_until.
template <Order O, Scope S, class T, class Ready>
MORI_DEVICE bool wait_for(const World& world, const T* location, Ready ready, uint64_t expected, Wait what,
                          uint64_t peer, T& seen) {
  return poll_until(
      world,
      [&] {
        seen = atomic_load<O, S>(location);
        return ready(seen);
      },
      expected, what, peer, seen);
}

/// Waits until *location >= value; signals only grow, so a late reader misses nothing.
/// Callers, fails: as wait_for.
/// Orders:  acquire at scope S: what was written before the signal is visible to this lane afterwards.
template <Scope S = Scope::system>
MORI_DEVICE bool wait_until(const World& world, const uint64_t* location, uint64_t value, Wait what,
                            uint64_t peer) {
  uint64_t seen;
  return wait_for<Order::acquire, S>(
      world, location, [value](uint64_t v) { return v >= value; }, value, what, peer, seen);
}

// A word that carries its own meaning, and a tag that says whether it is there yet: no signal behind it, one
// trip instead of two. It grants what earlier kernels of the stream have done with (a buffer they read, say).
// On a GPU those are over, for every observer, when a kernel starts; the CPU orders them by release and
// acquire.

/// Callers: any lane. Orders: what earlier kernels did before the word; of this kernel nothing.
MORI_DEVICE void store_tagged(uint64_t* word, uint32_t tag, uint32_t value) {
  atomic_store<kStartIsOrdered ? Order::relaxed : Order::release, Scope::system>(word,
                                                                                 uint64_t(tag) << 32 | value);
}
/// Waits for the word's tag. Callers, fails: as wait_for. Orders: this lane's later writes, and those of
/// lanes it synchronises with, behind what the writer's earlier kernels did.
MORI_DEVICE bool wait_tagged(const World& world, const uint64_t* word, uint32_t tag, Wait what, uint64_t peer,
                             uint32_t& value) {
  uint64_t seen;
  const bool came = wait_for<kStartIsOrdered ? Order::relaxed : Order::acquire, Scope::system>(
      world, word, [tag](uint64_t v) { return uint32_t(v >> 32) == tag; }, tag, what, peer, seen);
  value = uint32_t(seen);
  return came;
}

/// Copies `bytes` (a multiple of 16, both sides 16-byte aligned). Callers: the warp.
/// Orders: nothing; sync_warp() or sync_block() and a release follow before a signal.
template <int kUnroll = 8>
MORI_DEVICE void warp_copy(void* to, const void* from, size_t bytes) {
#if defined(MORI_WARP_COPY_IS_MEMCPY)
  memcpy(to, from, bytes);
#else
  vec16* d = static_cast<vec16*>(to);
  const vec16* s = static_cast<const vec16*>(from);
  const size_t n = bytes / sizeof(vec16);
  size_t i = lane_id();
  // unrolled by hand: nvcc would do it again, and spill in kernels of many threads
  MORI_NO_UNROLL
  for (; i + (kUnroll - 1) * kWarpSize < n; i += kUnroll * kWarpSize) {
    vec16 v[kUnroll];
    MORI_UNROLL
    for (int u = 0; u < kUnroll; ++u) v[u] = load_streaming(s + i + u * kWarpSize);
    MORI_UNROLL
    for (int u = 0; u < kUnroll; ++u) store_streaming(d + i + u * kWarpSize, v[u]);
  }
  constexpr int kRest = kUnroll / 2;  // predicated, so that a lane waits once for several loads
  MORI_NO_UNROLL
  for (; i < n; i += kRest * kWarpSize) {
    vec16 v[kRest];
    MORI_UNROLL
    for (int u = 0; u < kRest; ++u) {
      if (i + u * kWarpSize < n) v[u] = load_streaming(s + i + u * kWarpSize);
    }
    MORI_UNROLL
    for (int u = 0; u < kRest; ++u) {
      if (i + u * kWarpSize < n) store_streaming(d + i + u * kWarpSize, v[u]);
    }
  }
#endif
}

/// warp_copy() of data that is too large for a cache to hold until it is read. Callers: the warp.
/// Orders: nothing; the same lanes call finish_large_copies() before the barrier or release that follows.
MORI_DEVICE void warp_copy_large(void* to, const void* from, size_t bytes) {
#if defined(MORI_WARP_COPY_IS_MEMCPY)
  copy_past_cache(to, from, bytes);
#else
  warp_copy(to, from, bytes);
#endif
}
MORI_DEVICE void finish_large_copies() {
#if defined(MORI_WARP_COPY_IS_MEMCPY)
  fence_past_cache();
#endif
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori
