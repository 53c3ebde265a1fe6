// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// An entry of the toy family: toy.hpp writes it, toy_nic.hpp reads it.
#pragma once
#include <stdint.h>

namespace mori::ibgda {

/// An entry's first 64 bytes. A second unit holds its own position eight times.
struct ToyEntry {
  uint64_t position;
  uint32_t op;
  uint32_t units;
  uint64_t signaled;
  uint64_t remote;
  uint64_t local;
  uint64_t value;
  uint64_t unused;
  uint64_t position_again;
};
static_assert(sizeof(ToyEntry) == 64);

}  // namespace mori::ibgda
