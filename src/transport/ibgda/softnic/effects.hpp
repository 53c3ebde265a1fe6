// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// What requests do to memory of this process, word by word. Nothing is checked here.
#pragma once
#include <cstdint>

#include "src/transport/ibgda/types.hpp"

namespace mori::ibgda {

constexpr bool is_atomic(Op op) {
  return op == Op::fetch_add || op == Op::compare_swap || op == Op::masked_fetch_add ||
         op == Op::masked_compare_swap;
}

/// Copies; an aligned word of 4 or 8 bytes arrives whole and with release, since somebody may be polling it,
/// or reading it as it is written.
void move_bytes(uint64_t to, uint64_t from, uint64_t bytes);
/// The same of a payload that nobody else writes, at any alignment.
void place_bytes(uint64_t to, const unsigned char* payload, uint64_t bytes);
/// In pieces, the last first, or from the middle: nobody may rely on the order inside a message.
void scatter_bytes(uint64_t to, uint64_t from, uint64_t bytes, uint64_t seed);

/// Does an atomic of 4 or 8 bytes at the aligned `address`. The word that was there.
uint64_t change_word(uint64_t address, const Request& request);
/// Writes a fetched word where the requester wants it, as a NIC leaves it there.
void deliver_word(uint64_t to, uint64_t word, uint32_t bytes);

}  // namespace mori::ibgda
