// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// mori/blocks.hpp for tests/device/test_blocks.py: FORMAT is one format; the arguments choose the rest.
#include <mori/blocks.hpp>

namespace mori {
struct BlocksArgs {
  uint64_t rows;    // type[rows][n], each beginning `stride` bytes behind the one before
  uint64_t codes;   // of a row
  uint64_t scales;  // of a row
  uint64_t n, row_stride, code_stride, scale_stride;
  uint32_t count;  // rows: one for each group of the launch, and again
  uint32_t group;  // 0 thread, 1 warp, 2 block
  uint32_t type;   // 0 bfloat16, 1 float16, 2 float
  uint32_t codec;  // 0 none, 1 to 4 as below
};

template <class Each>
MORI_DEVICE void each_row(const BlocksArgs& a, Each each) {
  if (a.group == 0) {
    const uint32_t first = block_id() * block_lanes() + block_lane(), step = grid_blocks() * block_lanes();
    for (uint32_t i = first; i < a.count; i += step) each(Thread{}, i);
  } else if (a.group == 1) {
    for (uint32_t i = global_warp(); i < a.count; i += grid_warps()) each(Warp{}, i);
  } else {
    for (uint32_t i = block_id(); i < a.count; i += grid_blocks()) {
      each(Block{shared_memory<uint32_t>()}, i);
    }
  }
}

template <class C, class T>
MORI_DEVICE void with_scales(const BlocksArgs& a, bool back) {
  using Stored = typename C::Scale::Stored;
  each_row(a, [&](auto group, uint32_t i) {
    T* row = global<T>(a.rows + i * a.row_stride);
    void* codes = global<void>(a.codes + i * a.code_stride);
    Stored* scales = global<Stored>(a.scales + i * a.scale_stride);
    if (back) {
      blocks::dequantise<C>(group, row, codes, scales, a.n);
    } else {
      blocks::quantise<C>(group, codes, scales, row, a.n);
    }
  });
}

template <class T>
inline constexpr bool kBrain = false;
template <>
inline constexpr bool kBrain<bfloat16> = true;

template <class T>
MORI_DEVICE void run_type(const BlocksArgs& a, bool back) {
  using namespace blocks;
  if (a.codec == 1) return with_scales<Codec<FORMAT, E8m0Scale, 32>, T>(a, back);
  if (a.codec == 2) return with_scales<Codec<FORMAT, Fp32Scale, 128>, T>(a, back);
  if constexpr (kBrain<T>) {  // less to compile
    if (a.codec == 3) return with_scales<Codec<FORMAT, Fp32Scale, 16>, T>(a, back);
    if (a.codec == 4) return with_scales<Codec<FORMAT, E8m0Scale, 64>, T>(a, back);
  }
  each_row(a, [&](auto group, uint32_t i) {
    T* row = global<T>(a.rows + i * a.row_stride);
    void* codes = global<void>(a.codes + i * a.code_stride);
    if (back) {
      decode<FORMAT>(group, row, codes, a.n);
    } else {
      encode<FORMAT>(group, codes, row, a.n);
    }
  });
}

MORI_DEVICE void run(const BlocksArgs& a, bool back) {
  if (a.type == 0) return run_type<bfloat16>(a, back);
  if (a.type == 1) return run_type<float16>(a, back);
  run_type<float>(a, back);
}

MORI_KERNEL(narrow_rows, BlocksArgs, 256) { run(args, false); }
MORI_KERNEL(widen_rows, BlocksArgs, 256) { run(args, true); }
}  // namespace mori
