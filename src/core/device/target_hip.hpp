// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The AMD target, without any HIP header: clang -x hip -nogpuinc -nogpulib. CDNA (wave64, gfx9) only.
#pragma once
#if defined(__HIP_DEVICE_COMPILE__) && !defined(__GFX9__)
#error "MoRI's AMD target is CDNA (gfx942, gfx950): wave64"
#endif

#define MORI_TARGET_NAMESPACE hip_w64
#define MORI_UNROLL _Pragma("unroll")
#define MORI_NO_UNROLL _Pragma("unroll 1")
#define MORI_DEVICE __attribute__((device)) inline __attribute__((always_inline))
#define MORI_DEVICE_NOINLINE __attribute__((device)) inline __attribute__((noinline))
#define MORI_KERNEL(name, Args, max_threads)                                                                 \
  extern "C" __attribute__((global)) __attribute__((amdgpu_flat_work_group_size(1, max_threads))) void name( \
      const ::mori::Args args)

namespace mori {
inline namespace MORI_TARGET_NAMESPACE {

/// Whether kernels have the code that posts to a NIC's queues: it takes registers, and stack where it is
/// called, also where it never runs. Without it, what only a queue reaches is refused.
#if defined(MORI_QUEUES)
inline constexpr bool kHasQueues = true;
#else
inline constexpr bool kHasQueues = false;
#endif
constexpr uint32_t kWarpSize = 64;
using mask_t = uint64_t;
typedef uint32_t vec16 __attribute__((ext_vector_type(4)));

MORI_DEVICE uint32_t lane_id() { return __builtin_amdgcn_mbcnt_hi(~0u, __builtin_amdgcn_mbcnt_lo(~0u, 0u)); }
// readfirstlane tells the compiler that the value is the same in all lanes.
MORI_DEVICE uint32_t warp_id() {
  return uint32_t(__builtin_amdgcn_readfirstlane(int(__builtin_amdgcn_workitem_id_x() >> 6)));
}
MORI_DEVICE uint32_t warps_per_block() { return uint32_t(__builtin_amdgcn_workgroup_size_x()) >> 6; }
MORI_DEVICE uint32_t block_id() { return __builtin_amdgcn_workgroup_id_x(); }
MORI_DEVICE uint32_t grid_blocks() {  // code object v5+: hidden_block_count_x is the first implicit argument
  return *(const __attribute__((address_space(4))) uint32_t*)__builtin_amdgcn_implicitarg_ptr();
}
MORI_DEVICE void sync_warp() {
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "wavefront");
  __builtin_amdgcn_wave_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "wavefront");
}
/// Waits until this wave's loads, stores and cache write-backs have completed. A constant, because the
/// builtin wants one: vmcnt(0), the other counters at their maximum.
MORI_DEVICE void wait_vector_memory() { __builtin_amdgcn_s_waitcnt(0x0f70); }
MORI_DEVICE void sync_block() {
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
  // The compiler lets stores be in flight across the barrier, as waves of one CU see them in order. One
  // lane's system-scope release afterwards waits only for its own wave's: the others must be done here.
  wait_vector_memory();
  __builtin_amdgcn_s_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}
template <class T>
MORI_DEVICE T shuffle(T value, uint32_t source) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  union {
    T value;
    int word[sizeof(T) / 4];
  } u;
  u.value = value;
  for (int k = 0; k < int(sizeof(T) / 4); ++k) {
    u.word[k] = __builtin_amdgcn_ds_bpermute(int(source << 2), u.word[k]);
  }
  return u.value;
}
MORI_DEVICE mask_t ballot(bool predicate) { return __builtin_amdgcn_ballot_w64(predicate); }
/// Lanes of a warp that are at one place together: diverged code's ballot, shuffle and sync. The execution
/// mask says who they are; `mask` must not name others.
struct ActiveLanes {
  mask_t mask;
  MORI_DEVICE mask_t ballot(bool predicate) const { return mori::ballot(predicate); }
  template <class T>
  MORI_DEVICE T shuffle(T value, uint32_t source) const {
    return mori::shuffle(value, source);
  }
  MORI_DEVICE void sync() const { sync_warp(); }
};
MORI_DEVICE ActiveLanes active_lanes() { return {ballot(true)}; }
MORI_DEVICE uint32_t first_lane(mask_t mask) { return uint32_t(__builtin_ctzll(mask)); }
MORI_DEVICE uint32_t count_lanes(mask_t mask) { return uint32_t(__builtin_popcountll(mask)); }

MORI_DEVICE uint32_t count_bits(uint64_t bits) { return uint32_t(__builtin_popcountll(bits)); }
MORI_DEVICE uint32_t first_bit(uint64_t bits) { return uint32_t(__builtin_ctzll(bits)); }

/// A product that is never fused into a following addition, so that all targets round alike.
MORI_DEVICE float multiply(float a, float b) {
#pragma clang fp contract(off)
  return a * b;
}
/// Rounded to nearest, as division is.
MORI_DEVICE float square_root(float value) { return __builtin_sqrtf(value); }
MORI_DEVICE uint32_t bits_of(float value) { return __builtin_bit_cast(uint32_t, value); }
MORI_DEVICE float float_of(uint32_t bits) { return __builtin_bit_cast(float, bits); }

extern __attribute__((shared)) __attribute__((aligned(16))) unsigned char mori_shared_memory_[];
template <class T>
MORI_DEVICE T* shared_memory() {
  return reinterpret_cast<T*>(mori_shared_memory_);
}
/// An address out of an argument block is global memory: global_* instead of flat_* instructions.
template <class T>
MORI_DEVICE T* global(uint64_t address) {
  return (T*)(__attribute__((address_space(1))) T*)address;
}

template <Order O>
constexpr int kOrder = O == Order::relaxed   ? __ATOMIC_RELAXED
                       : O == Order::acquire ? __ATOMIC_ACQUIRE
                       : O == Order::release ? __ATOMIC_RELEASE
                                             : __ATOMIC_ACQ_REL;
template <Scope S>
constexpr int kScope = S == Scope::system   ? __HIP_MEMORY_SCOPE_SYSTEM
                       : S == Scope::device ? __HIP_MEMORY_SCOPE_AGENT
                                            : __HIP_MEMORY_SCOPE_WORKGROUP;
/// The fence in front of a release. Clang up to 22 drops the wait behind the L2 write-back when it knows of
/// no store of this wave in flight (LLVM pull request 178316), so the flag could overtake the payload.
template <Scope S>
MORI_DEVICE void release_fence() {
  if constexpr (S == Scope::system) {
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "");
  } else if constexpr (S == Scope::device) {
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "agent");
  } else {
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
  }
  wait_vector_memory();
}
template <Order O, Scope S, class T>
MORI_DEVICE T atomic_load(const T* p) {
  return __hip_atomic_load(p, kOrder<O>, kScope<S>);
}
template <Order O, Scope S, class T>
MORI_DEVICE void atomic_store(T* p, T value) {
  if constexpr (O == Order::release) release_fence<S>();
  __hip_atomic_store(p, value, __ATOMIC_RELAXED, kScope<S>);
}
template <Order O, Scope S, class T>
MORI_DEVICE T atomic_fetch_add(T* p, T value) {
  constexpr bool kRelease = O == Order::release || O == Order::acq_rel;
  if constexpr (kRelease) release_fence<S>();
  constexpr int order = O == Order::acquire || O == Order::acq_rel ? __ATOMIC_ACQUIRE : __ATOMIC_RELAXED;
  return __hip_atomic_fetch_add(p, value, order, kScope<S>);
}
template <Scope S, class T>
MORI_DEVICE bool atomic_compare_exchange(T* p, T& expected, T desired) {
  release_fence<S>();
  return __hip_atomic_compare_exchange_strong(p, &expected, desired, __ATOMIC_ACQUIRE, __ATOMIC_ACQUIRE,
                                              kScope<S>);
}

template <Modify M, Scope S, class T>
MORI_DEVICE T atomic_fetch_modify(T* p, T value) {
  if constexpr (M == Modify::exchange) {
    return __hip_atomic_exchange(p, value, __ATOMIC_RELAXED, kScope<S>);
  } else if constexpr (M == Modify::bit_and) {
    return __hip_atomic_fetch_and(p, value, __ATOMIC_RELAXED, kScope<S>);
  } else if constexpr (M == Modify::bit_or) {
    return __hip_atomic_fetch_or(p, value, __ATOMIC_RELAXED, kScope<S>);
  } else {
    return __hip_atomic_fetch_xor(p, value, __ATOMIC_RELAXED, kScope<S>);
  }
}
template <Scope S, class T>
MORI_DEVICE T atomic_compare_swap(T* p, T expected, T desired) {
  __hip_atomic_compare_exchange_strong(p, &expected, desired, __ATOMIC_RELAXED, __ATOMIC_RELAXED, kScope<S>);
  return expected;
}

/// One attempt to turn 0 into 1. Orders: as an acquire where it succeeds.
template <Scope S>
MORI_DEVICE bool atomic_try_lock(uint32_t* p) {
  uint32_t expected = 0;
  return __hip_atomic_compare_exchange_strong(p, &expected, 1u, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED,
                                              kScope<S>);
}

template <Scope S>
MORI_DEVICE void fence_acq_rel() {
  release_fence<S>();
  if constexpr (S == Scope::system) {
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "");
  } else {
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "agent");
  }
}
template <Scope S>
MORI_DEVICE void fence_seq_cst() {
  release_fence<S>();
  if constexpr (S == Scope::system) {
    __builtin_amdgcn_fence(__ATOMIC_SEQ_CST, "");
  } else {
    __builtin_amdgcn_fence(__ATOMIC_SEQ_CST, "agent");
  }
}

constexpr bool kHasPairStore = false;  // two words in one store: not known to be seen at once
MORI_DEVICE void store_pair(uint64_t*, uint64_t, uint64_t) {}

// When a kernel starts, everything that earlier kernels of its stream did is over.
constexpr bool kStartIsOrdered = true;

/// Adds to a word of the block's shared memory. Orders: nothing.
MORI_DEVICE void shared_add(uint32_t* p, uint32_t value) {
  __hip_atomic_fetch_add((__attribute__((address_space(3))) uint32_t*)p, value, __ATOMIC_RELAXED,
                         __HIP_MEMORY_SCOPE_WORKGROUP);
}

/// Ticks of the constant-rate clock; the host passes deadlines in the same ticks.
MORI_DEVICE uint64_t clock_ticks() { return __builtin_amdgcn_s_memrealtime(); }
// Polls between looks at the error word. It is in host memory: when many blocks read it through PCIe while
// they wait, stores to peers all but stop (on 2 H200, combine took 1500 us instead of 270).
constexpr uint32_t kFailureLookMask = 4095;
MORI_DEVICE void pause(uint32_t iteration) {
  if (iteration > 32) __builtin_amdgcn_s_sleep(1);
}

template <class T>
MORI_DEVICE T load_constant(const T* p) {
  return *p;
}
/// What a peer may have written since this was last read here: past this GPU's caches. 1, 2, 4, 8 or 16 bytes
/// of global memory, aligned to that; no instruction of 16 bytes is known to the compiler. Orders: nothing.
template <class T>
MORI_DEVICE T load_fresh(const T* p) {
  if constexpr (sizeof(T) == 16) {
    struct {
      uint64_t low, high;
    } both;
    using Word __attribute__((__may_alias__)) = uint64_t;
    const Word* words = reinterpret_cast<const Word*>(p);
    both.low = atomic_load<Order::relaxed, Scope::system>(words);
    both.high = atomic_load<Order::relaxed, Scope::system>(words + 1);
    return __builtin_bit_cast(T, both);
  } else {
    return atomic_load<Order::relaxed, Scope::system>(p);
  }
}
MORI_DEVICE vec16 load_cached(const vec16* p) { return *p; }
MORI_DEVICE vec16 load_streaming(const vec16* p) { return __builtin_nontemporal_load(p); }
MORI_DEVICE void store_streaming(vec16* p, vec16 value) { __builtin_nontemporal_store(value, p); }

// gfx942 converts to the FNUZ format; only gfx950 has OCP e4m3.
#if defined(__gfx950__)
#define MORI_HAS_NATIVE_E4M3FN 1
MORI_DEVICE float e4m3fn_bounded(float value) {
  return value != value ? value : __builtin_fminf(__builtin_fmaxf(value, -448.0f), 448.0f);
}
/// Two values, the first in the lower byte: to nearest even, saturated.
MORI_DEVICE uint16_t e4m3fn_pair_native(float first, float second) {
  return uint16_t(__builtin_amdgcn_cvt_pk_fp8_f32(e4m3fn_bounded(first), e4m3fn_bounded(second), 0, false));
}
#endif

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori
