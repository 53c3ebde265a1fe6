// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// What the litmus kernels and the programs that launch them agree on.
#pragma once
#include <stdint.h>

#include "src/core/device/world.hpp"

namespace mori {

enum class Litmus : uint32_t {
  message,       ///< p, fence, p: who sees the second sees the first
  put_fence,     ///< put of many words, fence, put of one
  put_amo,       ///< put, fence, atomic_add
  put_signal,    ///< put_signal and put_signal_nbi
  store_buffer,  ///< p, quiet, load on both sides: one of them sees the other's
  independent,   ///< two writers, two readers with quiet between their loads: they agree on the order
};

/// Of one instance; a block of each rank works on one.
struct LitmusWords {
  uint64_t data[16];  ///< what is published
  uint64_t flag, rest_of_line[15];
  uint64_t ack, rest_of_line2[15];   ///< set by the reader: the data may be overwritten
  uint64_t turn, rest_of_line3[15];  ///< set by the other side of a store buffer test
};
static_assert(sizeof(LitmusWords) == 512, "layout");

struct LitmusArgs {
  World world;
  uint64_t words;    ///< symmetric: LitmusWords[blocks]
  uint64_t rounds;   ///< of each block
  uint64_t results;  ///< of this rank; store_buffer: uint8_t[blocks][rounds], 1 where the other's store was
                     ///< not seen; independent: uint32_t[blocks][rounds][2], first and second load; others:
                     ///< uint64_t[blocks], words that were older than their flag
  Litmus test;
  uint32_t words_of_data;  ///< at most 16
};

}  // namespace mori
