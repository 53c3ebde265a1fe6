// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// What the kernels of the conformance suite share: a launch runs a list of cases, each by the group (thread,
// warp, block) that the launch is for, and the host compares every byte afterwards. shmem_cases.py makes the
// lists; the numbers of operations and types are the positions in its tables.
#pragma once
#include <mori/shmem.hpp>

namespace mori {

struct CasesArgs {
  World world;
  uint64_t cases;  // of the kernel's case struct
  uint64_t count;
  uint32_t scope;  // 0 thread, 1 warp, 2 block
  uint32_t queue;  // of the context
};

namespace conformance {
inline namespace MORI_TARGET_NAMESPACE {

template <class... T>
struct Types {};

// One type for every size and kind of number; the whole list where compile time is no concern. The other
// names of OpenSHMEM's tables (int8, size, ptrdiff, ...) are names of these types.
#if defined(MORI_TEST_ALL_TYPES)
using RmaTypes = Types<float, double, char, signed char, short, int, long, long long, unsigned char,
                       unsigned short, unsigned int, unsigned long, unsigned long long>;
using AmoTypes = Types<float, double, int, long, long long, unsigned int, unsigned long, unsigned long long>;
using WaitTypes = Types<int, long, long long, unsigned int, unsigned long, unsigned long long>;
#else
using RmaTypes = Types<float, double, signed char, unsigned short, long>;
using AmoTypes = Types<float, double, int, unsigned long>;
using WaitTypes = Types<int, unsigned long>;
#endif

template <class T>
inline constexpr bool kIsFloat = false;
template <>
inline constexpr bool kIsFloat<float> = true;
template <>
inline constexpr bool kIsFloat<double> = true;

/// Calls f with a null pointer to the type at `index` of the list.
template <class... T, class F>
MORI_DEVICE void with_type(Types<T...>, uint64_t index, F f) {
  uint64_t at = 0;
  ((at++ == index ? f(static_cast<T*>(nullptr)) : void()), ...);
}

/// Calls f(group, number of the group, number of groups) in every group of the launch.
template <class F>
MORI_DEVICE void by_scope(uint32_t scope, F f) {
  if (scope == 0) {
    f(Thread{}, block_id() * block_lanes() + block_lane(), grid_blocks() * block_lanes());
  } else if (scope == 1) {
    f(Warp{}, global_warp(), grid_warps());
  } else {
    f(Block{shared_memory<uint32_t>()}, block_id(), grid_blocks());
  }
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace conformance
}  // namespace mori
