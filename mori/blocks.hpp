// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Building blocks for kernels of your own, by a thread, a warp or a block, on NVIDIA, AMD and CPUs:
//
//   using Fp8 = blocks::Codec<E4m3fn, blocks::Fp32Scale, 128>;
//   blocks::quantise<Fp8>(Warp{}, codes, scales, row, 7168);      // bfloat16, float16 or float rows
//   blocks::dequantise<Fp8>(Warp{}, row, codes, scales, 7168);
//   blocks::reduce<bfloat16>(Warp{}, sum, blocks::strided_rows(rows, 7168), 8, 7168);
//   blocks::publish(Warp{}, flag, round);                         // and await, credits, who comes last
//   copy(Warp{}, to, from, bytes);                                // any size and alignment
//
// docs/blocks.md has the formats and the rules.
#pragma once
#include "src/core/device/blocks_flags.hpp"
#include "src/core/device/blocks_quantise.hpp"
#include "src/core/device/blocks_reduce.hpp"
