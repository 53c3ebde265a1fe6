// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Sums of mori/blocks.hpp for tests/device/test_blocks_reduce.py.
#include <mori/blocks.hpp>

namespace mori {
struct ReduceArgs {
  uint64_t to;       // out[n]
  uint64_t rows;     // in[count][stride]
  uint64_t weights;  // float[count], or 0
  uint64_t list;     // blocks::WeightedRow[count], or 0: then it is used
  uint64_t stride, n;
  uint32_t count;
  uint32_t group;    // 0 thread, 1 warp, 2 block
  uint32_t in, out;  // 0 bfloat16, 1 float16, 2 float
};

template <class In, class Out>
MORI_DEVICE void sum_rows(const ReduceArgs& a) {
  const auto rows = blocks::strided_rows(global<const In>(a.rows), a.stride, global<const float>(a.weights));
  Out* to = global<Out>(a.to);
  if (a.list != 0) {
    blocks::reduce<In>(Warp{}, to, global<const blocks::WeightedRow>(a.list), a.count, a.n);
  } else if (a.group == 0) {
    if (block_lane() == 0) blocks::reduce<In>(Thread{}, to, rows, a.count, a.n);
  } else if (a.group == 1) {
    if (warp_id() == 0) blocks::reduce<In>(Warp{}, to, rows, a.count, a.n);
  } else {
    blocks::reduce<In>(Block{shared_memory<uint32_t>()}, to, rows, a.count, a.n);
  }
}
template <class In>
MORI_DEVICE void sum_rows_of(const ReduceArgs& a) {
  if (a.out == 0) return sum_rows<In, bfloat16>(a);
  if (a.out == 1) return sum_rows<In, float16>(a);
  sum_rows<In, float>(a);
}
MORI_KERNEL(reduce_rows, ReduceArgs, 256) {
  if (args.in == 0) return sum_rows_of<bfloat16>(args);
  if (args.in == 1) return sum_rows_of<float16>(args);
  sum_rows_of<float>(args);
}
}  // namespace mori
