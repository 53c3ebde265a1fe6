// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The CPU target. MORI_CPU_WARP = 1 is the fast one: lane loops become plain loops. 32 and 64 are
// lane-accurate: the runtime runs every lane as a fiber and they meet at shuffle, ballot and sync.
#pragma once
#include <string.h>
#include <time.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include "src/core/device/cpu_abi.hpp"
#include "src/core/stream_copy.hpp"

#ifndef MORI_CPU_WARP
#define MORI_CPU_WARP 1
#endif
#define MORI_CAT2_(a, b) a##b
#define MORI_CAT_(a, b) MORI_CAT2_(a, b)
#define MORI_TARGET_NAMESPACE MORI_CAT_(cpu_w, MORI_CPU_WARP)
// Nothing: an unrolled lane loop hides from the vectoriser.
#define MORI_UNROLL
#define MORI_NO_UNROLL _Pragma("GCC unroll 1")
#define MORI_DEVICE inline __attribute__((always_inline))
// A plain loop that is worth compiling for newer processors too: the loader takes the best one this machine
// runs. Sanitizers do not start before the loader asks.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_THREAD__) && \
    !defined(__SANITIZE_ADDRESS__)
#define MORI_CPU_CLONES \
  __attribute__((noinline, target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MORI_CPU_CLONES
#endif
#define MORI_DEVICE_NOINLINE inline __attribute__((noinline))
#define MORI_KERNEL(name, Args, max_threads)                                                           \
  static void name(const ::mori::Args& args);                                                          \
  namespace {                                                                                          \
  const ::mori::MORI_TARGET_NAMESPACE::Registrar name##_registrar{                                     \
      #name, +[](const void* a) { name(*static_cast<const ::mori::Args*>(a)); }, sizeof(::mori::Args), \
      max_threads};                                                                                    \
  }                                                                                                    \
  static void name(const ::mori::Args& args)

namespace mori {
inline namespace MORI_TARGET_NAMESPACE {

inline constexpr uint32_t kWarpSize = MORI_CPU_WARP;
inline constexpr bool kHasQueues = true;
using mask_t = uint64_t;

extern __attribute__((visibility("hidden"), tls_model("initial-exec"))) __thread MoriCpuLane* current_lane;
extern __attribute__((visibility("hidden"))) const MoriCpuEntry* entry_list;
struct Registrar {
  MoriCpuEntry entry;
  Registrar(const char* name, void (*run)(const void*), uint64_t args_bytes, uint32_t max_threads)
      : entry{name, run, args_bytes, max_threads, entry_list} {
    entry_list = &entry;
  }
};

struct alignas(16) vec16 {
  uint32_t x, y, z, w;
};

MORI_DEVICE uint32_t warp_id() { return current_lane->warp; }
MORI_DEVICE uint32_t warps_per_block() { return current_lane->warps; }
MORI_DEVICE uint32_t block_id() { return current_lane->block; }
MORI_DEVICE uint32_t grid_blocks() { return current_lane->blocks; }
MORI_DEVICE void sync_block() {
  if (kWarpSize * current_lane->warps > 1) current_lane->ops->block_sync(current_lane);
}

#if MORI_CPU_WARP == 1
MORI_DEVICE uint32_t lane_id() { return 0; }
MORI_DEVICE void sync_warp() {}
template <class T>
MORI_DEVICE T shuffle(T value, uint32_t) {
  return value;
}
MORI_DEVICE mask_t ballot(bool predicate) { return predicate; }
#else
MORI_DEVICE uint32_t lane_id() { return current_lane->lane; }
MORI_DEVICE void sync_warp() { current_lane->ops->warp_exchange(current_lane, kMoriCpuSyncWarp, 0); }
template <class T>
MORI_DEVICE T shuffle(T value, uint32_t source) {
  static_assert(sizeof(T) <= 8);
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  bits = current_lane->ops->warp_exchange(current_lane, kMoriCpuShuffle + sizeof value,
                                          bits)[source & (kWarpSize - 1)];
  memcpy(&value, &bits, sizeof value);
  return value;
}
MORI_DEVICE mask_t ballot(bool predicate) {
  const uint64_t* all = current_lane->ops->warp_exchange(current_lane, kMoriCpuBallot, predicate);
  mask_t mask = 0;
  for (uint32_t i = 0; i < kWarpSize; ++i) mask |= all[i] << i;
  return mask;
}
#endif
/// Lanes of a warp that are at one place together: diverged code's ballot, shuffle and sync. Here nothing
/// tells which lanes those are: every lane is alone.
struct ActiveLanes {
  mask_t mask;
  MORI_DEVICE mask_t ballot(bool predicate) const { return predicate ? mask : 0; }
  template <class T>
  MORI_DEVICE T shuffle(T value, uint32_t) const {
    return value;
  }
  MORI_DEVICE void sync() const {}
};
MORI_DEVICE ActiveLanes active_lanes() { return {mask_t(1) << lane_id()}; }
MORI_DEVICE uint32_t first_lane(mask_t mask) { return uint32_t(__builtin_ctzll(mask)); }
MORI_DEVICE uint32_t count_lanes(mask_t mask) { return uint32_t(__builtin_popcountll(mask)); }

MORI_DEVICE uint32_t count_bits(uint64_t bits) { return uint32_t(__builtin_popcountll(bits)); }
MORI_DEVICE uint32_t first_bit(uint64_t bits) { return uint32_t(__builtin_ctzll(bits)); }

/// A product that is never fused into a following addition, so that all targets round alike.
MORI_DEVICE float multiply(float a, float b) { return a * b; }
/// Rounded to nearest, as division is.
MORI_DEVICE float square_root(float value) { return __builtin_sqrtf(value); }
MORI_DEVICE uint32_t bits_of(float value) { return __builtin_bit_cast(uint32_t, value); }
MORI_DEVICE float float_of(uint32_t bits) { return __builtin_bit_cast(float, bits); }

template <class T>
MORI_DEVICE T* shared_memory() {
  return reinterpret_cast<T*>(current_lane->shared);
}
template <class T>
MORI_DEVICE T* global(uint64_t address) {
  return reinterpret_cast<T*>(address);
}

template <Order O>
inline constexpr int kOrder = O == Order::relaxed   ? __ATOMIC_RELAXED
                              : O == Order::acquire ? __ATOMIC_ACQUIRE
                              : O == Order::release ? __ATOMIC_RELEASE
                                                    : __ATOMIC_ACQ_REL;
template <int O>
struct OrderConstant {
  static constexpr int value = O;
};
// Scopes do not exist on a CPU: every ordered access is system-wide.
template <Order O, Scope S, class T>
MORI_DEVICE T atomic_load(const T* p) {
  return __atomic_load_n(p, kOrder<O>);
}
// ThreadSanitizer does not see fences. Under it a fence marks its lane, whose relaxed stores are releases
// from then on: what a fence means for stores, said in words that the sanitizer knows.
#if defined(__SANITIZE_THREAD__)
template <Order O>
MORI_DEVICE bool releases() {
  return O == Order::relaxed && current_lane->fenced != 0;
}
template <Scope S>
MORI_DEVICE void fence_acq_rel() {
  current_lane->fenced = 1;
}
template <Scope S>
MORI_DEVICE void fence_seq_cst() {
  __atomic_exchange_n(&current_lane->fenced, 1u, __ATOMIC_SEQ_CST);  // and a full fence of the processor
}
#else
template <Order O>
MORI_DEVICE bool releases() {
  return false;
}
template <Scope S>
MORI_DEVICE void fence_acq_rel() {
  __atomic_thread_fence(__ATOMIC_ACQ_REL);
}
template <Scope S>
MORI_DEVICE void fence_seq_cst() {
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
#endif
template <Order O, Scope S, class T>
MORI_DEVICE void atomic_store(T* p, T value) {
  if (releases<O>()) return __atomic_store_n(p, value, __ATOMIC_RELEASE);
  __atomic_store_n(p, value, kOrder<O>);
}
template <Order O, Scope S, class T>
MORI_DEVICE T atomic_fetch_add(T* p, T value) {
  if (releases<O>()) return __atomic_fetch_add(p, value, __ATOMIC_RELEASE);
  return __atomic_fetch_add(p, value, kOrder<O>);
}
template <Modify M, Scope S, class T>
MORI_DEVICE T atomic_fetch_modify(T* p, T value) {
  const auto modify = [&](auto order) {
    if constexpr (M == Modify::exchange) {
      return __atomic_exchange_n(p, value, decltype(order)::value);
    } else if constexpr (M == Modify::bit_and) {
      return __atomic_fetch_and(p, value, decltype(order)::value);
    } else if constexpr (M == Modify::bit_or) {
      return __atomic_fetch_or(p, value, decltype(order)::value);
    } else {
      return __atomic_fetch_xor(p, value, decltype(order)::value);
    }
  };
  if (releases<Order::relaxed>()) return modify(OrderConstant<__ATOMIC_RELEASE>{});
  return modify(OrderConstant<__ATOMIC_RELAXED>{});
}
template <Scope S, class T>
MORI_DEVICE T atomic_compare_swap(T* p, T expected, T desired) {
  const int order = releases<Order::relaxed>() ? __ATOMIC_RELEASE : __ATOMIC_RELAXED;
  __atomic_compare_exchange_n(p, &expected, desired, false, order, __ATOMIC_RELAXED);
  return expected;
}
template <Scope S, class T>
MORI_DEVICE bool atomic_compare_exchange(T* p, T& expected, T desired) {
  return __atomic_compare_exchange_n(p, &expected, desired, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

/// One attempt to turn 0 into 1. Orders: as an acquire where it succeeds.
template <Scope S>
MORI_DEVICE bool atomic_try_lock(uint32_t* p) {
  uint32_t expected = 0;
  return __atomic_compare_exchange_n(p, &expected, 1u, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

constexpr bool kHasPairStore = false;
MORI_DEVICE void store_pair(uint64_t*, uint64_t, uint64_t) {}

// A launch comes behind the previous one of its stream, on this rank's threads; for other ranks nothing
// orders it.
inline constexpr bool kStartIsOrdered = false;

/// Adds to a word of the block's shared memory. Orders: nothing.
MORI_DEVICE void shared_add(uint32_t* p, uint32_t value) {
  if (kWarpSize * current_lane->warps == 1) {
    *p += value;
  } else {
    __atomic_fetch_add(p, value, __ATOMIC_RELAXED);
  }
}

/// Nanoseconds since an arbitrary start.
MORI_DEVICE_NOINLINE uint64_t clock_ticks() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return uint64_t(t.tv_sec) * 1'000'000'000u + uint64_t(t.tv_nsec);
}
inline constexpr uint32_t kFailureLookMask = 31;  // polls between looks at the error word
MORI_DEVICE void pause(uint32_t iteration) {
  if (iteration >= current_lane->spins) return current_lane->ops->yield(current_lane);
#if defined(__x86_64__)
  _mm_pause();
#endif
}

template <class T>
MORI_DEVICE T load_constant(const T* p) {
  return *p;
}
/// What a peer may have written since this was last read here: caches are coherent.
template <class T>
MORI_DEVICE T load_fresh(const T* p) {
  return *p;
}
MORI_DEVICE vec16 load_cached(const vec16* p) { return *p; }
MORI_DEVICE vec16 load_streaming(const vec16* p) { return *p; }
MORI_DEVICE void store_streaming(vec16* p, vec16 value) { *p = value; }

// One lane is the whole warp: the C library's copy is the wide copy.
#if MORI_CPU_WARP == 1
#define MORI_WARP_COPY_IS_MEMCPY 1

MORI_DEVICE void copy_past_cache(void* to, const void* from, size_t bytes) {
  core::stream_copy(to, from, bytes);
}
MORI_DEVICE void fence_past_cache() { core::stream_fence(); }
#endif

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori
