// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Entries as a strict NIC reads them: a Request, or a sentence that says what is wrong. The other direction
// of providers/*/encode(); the two are written apart so that one checks the other.
#pragma once
#include <cstdint>
#include <string>

#include "src/transport/ibgda/types.hpp"

namespace mori::ibgda {

struct Entry {
  Request request;
  uint32_t units = 1;
  const unsigned char* payload = nullptr;  ///< of an inline request
};

/// Reads the entry at `position`. `wrong` is empty where it may be executed.
Entry decode(const Queue& queue, uint64_t position, std::string& wrong);

}  // namespace mori::ibgda
