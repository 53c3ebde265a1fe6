// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Bytes of one message on their way from a socket into registered memory.
#pragma once
#include <algorithm>
#include <cstring>

#include "src/transport/ibgda/softnic/effects.hpp"
#include "src/transport/ibgda/tcp/stream.hpp"

namespace mori::ibgda::tcp {

struct Landing {
  uint64_t address = 0, left = 0;
  uint32_t lkey = 0;
  bool good = false;  ///< false: the bytes are thrown away; so are those behind the region's removal
  bool word = false;  ///< one word, which arrives whole

  Landing() = default;
  Landing(uint64_t at, uint64_t bytes, uint32_t key, bool allowed)
      : address(at), left(bytes), lkey(key), good(allowed), word(bytes <= 8) {}

  /// Takes what is here or comes, `budget` bytes at most. Whether nothing is left. Throws Broken.
  bool go_on(int fd, Inbox& inbox, const Regions& regions, uint64_t& budget) {
    while (left > 0 && budget > 0) {
      good = good && regions.local_holds(lkey, address, left);
      uint64_t count = word ? left : std::min(left, inbox.here());
      if (const unsigned char* bytes = count > 0 ? inbox.take(count) : nullptr) {
        if (good) place_bytes(address, bytes, count);
      } else if (good && left >= kDirect && inbox.here() == 0) {
        count = Inbox::receive(fd, address, left);
        if (count == 0) return false;
      } else {
        if (inbox.fill(fd) == 0) return false;
        continue;
      }
      address += count;
      left -= count;
      budget -= std::min(budget, count);
    }
    return left == 0;
  }

 private:
  static constexpr uint64_t kDirect = 16 << 10;  ///< bytes from which on the socket writes to their place
};

}  // namespace mori::ibgda::tcp
