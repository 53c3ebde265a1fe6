// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The NVIDIA target (nvcc, sm_80 and later). Atomics are inline PTX: the __nv_atomic_* builtins want
// literal orders, so they cannot sit in a template, and libcu++ costs compile time.
#pragma once

#define MORI_TARGET_NAMESPACE cuda_w32
#define MORI_UNROLL _Pragma("unroll")
#define MORI_NO_UNROLL _Pragma("unroll 1")
#define MORI_DEVICE __device__ __forceinline__
#define MORI_DEVICE_NOINLINE __device__ __noinline__
// The second bound keeps ptxas from squeezing a 512-thread kernel into 64 registers and spilling.
#define MORI_KERNEL(name, Args, max_threads) \
  extern "C" __global__ void __launch_bounds__(max_threads, 1) name(const __grid_constant__ ::mori::Args args)

namespace mori {
inline namespace MORI_TARGET_NAMESPACE {

/// Whether kernels have the code that posts to a NIC's queues: it takes registers, and stack where it is
/// called, also where it never runs. Without it, what only a queue reaches is refused.
#if defined(MORI_QUEUES)
inline constexpr bool kHasQueues = true;
#else
inline constexpr bool kHasQueues = false;
#endif
constexpr uint32_t kWarpSize = 32;
using mask_t = uint32_t;
constexpr mask_t kAllLanes = 0xffffffffu;

struct alignas(16) vec16 {
  uint32_t x, y, z, w;
};

MORI_DEVICE uint32_t lane_id() { return threadIdx.x & 31u; }
MORI_DEVICE uint32_t warp_id() { return threadIdx.x >> 5; }
MORI_DEVICE uint32_t warps_per_block() { return blockDim.x >> 5; }
MORI_DEVICE uint32_t block_id() { return blockIdx.x; }
MORI_DEVICE uint32_t grid_blocks() { return gridDim.x; }
MORI_DEVICE void sync_warp() { __syncwarp(); }
MORI_DEVICE void sync_block() { __syncthreads(); }
template <class T>
MORI_DEVICE T shuffle(T value, uint32_t source) {
  return __shfl_sync(kAllLanes, value, int(source));
}
MORI_DEVICE mask_t ballot(bool predicate) { return __ballot_sync(kAllLanes, predicate); }
/// Lanes of a warp that are at one place together: diverged code's ballot, shuffle and sync.
struct ActiveLanes {
  mask_t mask;
  MORI_DEVICE mask_t ballot(bool predicate) const { return __ballot_sync(mask, predicate); }
  template <class T>
  MORI_DEVICE T shuffle(T value, uint32_t source) const {
    return __shfl_sync(mask, value, int(source));
  }
  MORI_DEVICE void sync() const { __syncwarp(mask); }
};
MORI_DEVICE ActiveLanes active_lanes() { return {__activemask()}; }
MORI_DEVICE uint32_t first_lane(mask_t mask) { return uint32_t(__ffs(int(mask)) - 1); }
MORI_DEVICE uint32_t count_lanes(mask_t mask) { return uint32_t(__popc(mask)); }

MORI_DEVICE uint32_t count_bits(uint64_t bits) { return uint32_t(__popcll((long long)bits)); }
MORI_DEVICE uint32_t first_bit(uint64_t bits) { return uint32_t(__ffsll((long long)bits) - 1); }

/// A product that is never fused into a following addition, so that all targets round alike.
MORI_DEVICE float multiply(float a, float b) { return __fmul_rn(a, b); }
/// Rounded to nearest, as division is.
MORI_DEVICE float square_root(float value) { return __fsqrt_rn(value); }
MORI_DEVICE uint32_t bits_of(float value) { return __float_as_uint(value); }
MORI_DEVICE float float_of(uint32_t bits) { return __uint_as_float(bits); }

extern __shared__ __align__(16) unsigned char mori_shared_memory_[];
template <class T>
MORI_DEVICE T* shared_memory() {
  return reinterpret_cast<T*>(mori_shared_memory_);
}
/// An address out of an argument block is global memory: LDG/STG instead of generic LD/ST.
template <class T>
MORI_DEVICE T* global(uint64_t address) {
  return static_cast<T*>(const_cast<void*>(static_cast<const void*>(__cvta_global_to_generic(address))));
}

// The order and scope are part of the PTX text, so each combination is its own string.
#define MORI_PTX_LOAD_(order, scope)                                                      \
  do {                                                                                    \
    if constexpr (sizeof(T) == 8) {                                                       \
      uint64_t r;                                                                         \
      asm volatile("ld." order "." scope ".b64 %0, [%1];" : "=l"(r) : "l"(p) : "memory"); \
      return T(r);                                                                        \
    } else {                                                                              \
      uint32_t r;                                                                         \
      asm volatile("ld." order "." scope ".b32 %0, [%1];" : "=r"(r) : "l"(p) : "memory"); \
      return T(r);                                                                        \
    }                                                                                     \
  } while (0)
#define MORI_PTX_STORE_(order, scope)                                                                 \
  do {                                                                                                \
    if constexpr (sizeof(T) == 8)                                                                     \
      asm volatile("st." order "." scope ".b64 [%0], %1;" ::"l"(p), "l"(uint64_t(value)) : "memory"); \
    else                                                                                              \
      asm volatile("st." order "." scope ".b32 [%0], %1;" ::"l"(p), "r"(uint32_t(value)) : "memory"); \
  } while (0)
#define MORI_PTX_ADD_(order, scope)                                 \
  do {                                                              \
    if constexpr (sizeof(T) == 8) {                                 \
      uint64_t r;                                                   \
      asm volatile("atom.add." order "." scope ".u64 %0, [%1], %2;" \
                   : "=l"(r)                                        \
                   : "l"(p), "l"(uint64_t(value))                   \
                   : "memory");                                     \
      return T(r);                                                  \
    } else {                                                        \
      uint32_t r;                                                   \
      asm volatile("atom.add." order "." scope ".u32 %0, [%1], %2;" \
                   : "=r"(r)                                        \
                   : "l"(p), "r"(uint32_t(value))                   \
                   : "memory");                                     \
      return T(r);                                                  \
    }                                                               \
  } while (0)
#define MORI_PTX_SCOPED_(instruction, order) \
  if constexpr (S == Scope::system)          \
    instruction(order, "sys");               \
  else if constexpr (S == Scope::device)     \
    instruction(order, "gpu");               \
  else                                       \
    instruction(order, "cta")

template <Order O, Scope S, class T>
MORI_DEVICE T atomic_load(const T* p) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  static_assert(O == Order::relaxed || O == Order::acquire);
  if constexpr (O == Order::relaxed) {
    MORI_PTX_SCOPED_(MORI_PTX_LOAD_, "relaxed");
  } else {
    MORI_PTX_SCOPED_(MORI_PTX_LOAD_, "acquire");
  }
}
template <Order O, Scope S, class T>
MORI_DEVICE void atomic_store(T* p, T value) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  static_assert(O == Order::relaxed || O == Order::release);
  if constexpr (O == Order::relaxed) {
    MORI_PTX_SCOPED_(MORI_PTX_STORE_, "relaxed");
  } else {
    MORI_PTX_SCOPED_(MORI_PTX_STORE_, "release");
  }
}
template <Order O, Scope S, class T>
MORI_DEVICE T atomic_fetch_add(T* p, T value) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  if constexpr (O == Order::relaxed) {
    MORI_PTX_SCOPED_(MORI_PTX_ADD_, "relaxed");
  } else if constexpr (O == Order::acquire) {
    MORI_PTX_SCOPED_(MORI_PTX_ADD_, "acquire");
  } else if constexpr (O == Order::release) {
    MORI_PTX_SCOPED_(MORI_PTX_ADD_, "release");
  } else {
    MORI_PTX_SCOPED_(MORI_PTX_ADD_, "acq_rel");
  }
}
template <Scope S, class T>
MORI_DEVICE bool atomic_compare_exchange(T* p, T& expected, T desired) {
  static_assert(sizeof(T) == 8 && S == Scope::system, "the one form the library needs");
  uint64_t r;
  asm volatile("atom.cas.acq_rel.sys.b64 %0, [%1], %2, %3;"
               : "=l"(r)
               : "l"(p), "l"(uint64_t(expected)), "l"(uint64_t(desired))
               : "memory");
  const bool swapped = r == uint64_t(expected);
  expected = T(r);
  return swapped;
}

#define MORI_PTX_MODIFY_(operation, scope)                                  \
  do {                                                                      \
    if constexpr (sizeof(T) == 8) {                                         \
      uint64_t r;                                                           \
      asm volatile("atom.relaxed." scope "." operation ".b64 %0, [%1], %2;" \
                   : "=l"(r)                                                \
                   : "l"(p), "l"(uint64_t(value))                           \
                   : "memory");                                             \
      return T(r);                                                          \
    } else {                                                                \
      uint32_t r;                                                           \
      asm volatile("atom.relaxed." scope "." operation ".b32 %0, [%1], %2;" \
                   : "=r"(r)                                                \
                   : "l"(p), "r"(uint32_t(value))                           \
                   : "memory");                                             \
      return T(r);                                                          \
    }                                                                       \
  } while (0)
#define MORI_PTX_MODIFY_SCOPED_(operation) \
  if constexpr (S == Scope::system)        \
    MORI_PTX_MODIFY_(operation, "sys");    \
  else if constexpr (S == Scope::device)   \
    MORI_PTX_MODIFY_(operation, "gpu");    \
  else                                     \
    MORI_PTX_MODIFY_(operation, "cta")

template <Modify M, Scope S, class T>
MORI_DEVICE T atomic_fetch_modify(T* p, T value) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  if constexpr (M == Modify::exchange) {
    MORI_PTX_MODIFY_SCOPED_("exch");
  } else if constexpr (M == Modify::bit_and) {
    MORI_PTX_MODIFY_SCOPED_("and");
  } else if constexpr (M == Modify::bit_or) {
    MORI_PTX_MODIFY_SCOPED_("or");
  } else {
    MORI_PTX_MODIFY_SCOPED_("xor");
  }
}
template <Scope S, class T>
MORI_DEVICE T atomic_compare_swap(T* p, T expected, T desired) {
  static_assert((sizeof(T) == 4 || sizeof(T) == 8) && S == Scope::system, "the one scope the library needs");
  if constexpr (sizeof(T) == 8) {
    uint64_t r;
    asm volatile("atom.relaxed.sys.cas.b64 %0, [%1], %2, %3;"
                 : "=l"(r)
                 : "l"(p), "l"(uint64_t(expected)), "l"(uint64_t(desired))
                 : "memory");
    return T(r);
  } else {
    uint32_t r;
    asm volatile("atom.relaxed.sys.cas.b32 %0, [%1], %2, %3;"
                 : "=r"(r)
                 : "l"(p), "r"(uint32_t(expected)), "r"(uint32_t(desired))
                 : "memory");
    return T(r);
  }
}

/// One attempt to turn 0 into 1. Orders: as an acquire where it succeeds.
template <Scope S>
MORI_DEVICE bool atomic_try_lock(uint32_t* p) {
  uint32_t r;
  if constexpr (S == Scope::system) {
    asm volatile("atom.acquire.sys.cas.b32 %0, [%1], 0, 1;" : "=r"(r) : "l"(p) : "memory");
  } else {
    asm volatile("atom.acquire.gpu.cas.b32 %0, [%1], 0, 1;" : "=r"(r) : "l"(p) : "memory");
  }
  return r == 0;
}

template <Scope S>
MORI_DEVICE void fence_acq_rel() {
  if constexpr (S == Scope::system) {
    asm volatile("fence.acq_rel.sys;" ::: "memory");
  } else {
    asm volatile("fence.acq_rel.gpu;" ::: "memory");
  }
}
template <Scope S>
MORI_DEVICE void fence_seq_cst() {
  if constexpr (S == Scope::system) {
    asm volatile("fence.sc.sys;" ::: "memory");
  } else {
    asm volatile("fence.sc.gpu;" ::: "memory");
  }
}

/// Both words become visible at once, which PTX promises of a 128-bit access, not of a vector. `p`: 16-byte
/// aligned global memory.
constexpr bool kHasPairStore = true;
MORI_DEVICE void store_pair(uint64_t* p, uint64_t first, uint64_t second) {
  asm volatile(
      "{ .reg .b128 pair;\n"
      "mov.b128 pair, {%1, %2};\n"
      "st.relaxed.sys.global.b128 [%0], pair; }" ::"l"(__cvta_generic_to_global(p)),
      "l"(first), "l"(second)
      : "memory");
}

// When a kernel starts, everything that earlier kernels of its stream did is over.
constexpr bool kStartIsOrdered = true;

/// Adds to a word of the block's shared memory. Orders: nothing.
MORI_DEVICE void shared_add(uint32_t* p, uint32_t value) {
  asm volatile("red.relaxed.cta.shared::cta.add.u32 [%0], %1;" ::"r"(uint32_t(__cvta_generic_to_shared(p))),
               "r"(value)
               : "memory");
}

/// Nanoseconds of the GPU's global timer.
MORI_DEVICE uint64_t clock_ticks() {
  uint64_t t;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t));
  return t;
}
// Polls between looks at the error word. It is in host memory: when many blocks read it through PCIe while
// they wait, stores to peers all but stop (on 2 H200, combine took 1500 us instead of 270).
constexpr uint32_t kFailureLookMask = 4095;
MORI_DEVICE void pause(uint32_t iteration) {
  // Many blocks may poll the word that a peer is about to write: long waits must not crowd its memory.
  if (iteration > 32) __nanosleep(iteration > 256 ? 256 : 32);
}

/// Memory that nobody writes while the kernel runs. An acquire does not make the compiler load it again.
template <class T>
MORI_DEVICE T load_constant(const T* p) {
  return __ldg(p);
}
/// What a peer may have written since this was last read here: past the SM's own cache. 1, 2, 4, 8 or 16
/// bytes of global memory, aligned to that. Orders: nothing.
template <class T>
MORI_DEVICE T load_fresh(const T* p) {
  if constexpr (sizeof(T) == 16) {
    struct {
      uint64_t low, high;
    } both;
    asm volatile("ld.relaxed.sys.global.v2.b64 {%0, %1}, [%2];"
                 : "=l"(both.low), "=l"(both.high)
                 : "l"(__cvta_generic_to_global(p))
                 : "memory");
    return __builtin_bit_cast(T, both);
  } else if constexpr (sizeof(T) >= 4) {
    return atomic_load<Order::relaxed, Scope::system>(p);
  } else {
    uint16_t r;
    if constexpr (sizeof(T) == 2) {
      asm volatile("ld.relaxed.sys.global.b16 %0, [%1];"
                   : "=h"(r)
                   : "l"(__cvta_generic_to_global(p))
                   : "memory");
    } else {
      asm volatile("ld.relaxed.sys.global.u8 %0, [%1];"
                   : "=h"(r)
                   : "l"(__cvta_generic_to_global(p))
                   : "memory");
    }
    return T(r);
  }
}
/// Data that is read again soon.
MORI_DEVICE vec16 load_cached(const vec16* p) { return *p; }
MORI_DEVICE vec16 load_streaming(const vec16* p) {
  vec16 v;
  asm volatile("ld.global.L1::no_allocate.v4.b32 {%0,%1,%2,%3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(__cvta_generic_to_global(p))
               : "memory");
  return v;
}
MORI_DEVICE void store_streaming(vec16* p, vec16 v) {
  asm volatile("st.global.cs.v4.b32 [%0], {%1,%2,%3,%4};" ::"l"(__cvta_generic_to_global(p)), "r"(v.x),
               "r"(v.y), "r"(v.z), "r"(v.w)
               : "memory");
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
#define MORI_HAS_NATIVE_E4M3FN 1
/// Two values, the first in the lower byte: to nearest even, saturated.
MORI_DEVICE uint16_t e4m3fn_pair_native(float first, float second) {
  uint16_t r;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(r) : "f"(second), "f"(first));
  return r;
}
#endif

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori
