// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Memory that the software NIC may touch, and the keys that name it. A key is 24 bits of index, which begin
// anywhere, and 8 bits that change when an index is used again; local and remote key of one region differ. So
// a key of another rank, of a region that is gone or of the other kind is one of nobody.
//
// Not for several threads at once: the NIC's lock is around all calls.
#pragma once
#include <cstdint>
#include <random>
#include <vector>

#include "src/transport/ibgda/keys.hpp"

namespace mori::ibgda {

class Regions {
 public:
  Regions() {
    std::random_device random;
    start_ = 0x1000 + random() % 0xe00000;
    tag_ = uint8_t(random());
  }

  RegionKeys add(uint64_t address, uint64_t bytes) {
    size_t slot = 0;
    while (slot < slots_.size() && slots_[slot].used) ++slot;
    if (slot == slots_.size()) slots_.push_back({.tag = tag_});
    slots_[slot] = {
        .address = address, .bytes = bytes, .tag = static_cast<uint8_t>(slots_[slot].tag + 2), .used = true};
    const uint32_t local = uint32_t(start_ + slot) << 8 | slots_[slot].tag;
    return {.local = local, .remote = local_of(local)};
  }
  /// The region's length from now on.
  void resize(uint32_t local, uint64_t bytes) {
    if (Slot* slot = find(local)) slot->bytes = bytes;
  }
  void remove(uint32_t local) {
    if (Slot* slot = find(local)) slot->used = false;
  }
  /// Whether all bytes are in the region of this local key.
  bool local_holds(uint32_t key, uint64_t address, uint64_t bytes) const {
    const Slot* slot = find(key);
    return slot != nullptr && slot->holds(address, bytes);
  }
  bool remote_holds(uint32_t key, uint64_t address, uint64_t bytes) const {
    return local_holds(local_of(key), address, bytes);
  }
  /// The local key of the region that this remote key names.
  static uint32_t local_of(uint32_t remote) { return remote ^ 1; }

 private:
  struct Slot {
    uint64_t address = 0, bytes = 0;
    uint8_t tag = 0;
    bool used = false;
    bool holds(uint64_t at, uint64_t count) const {
      return at >= address && count <= bytes && at - address <= bytes - count;
    }
  };
  const Slot* find(uint32_t local) const {
    const uint64_t slot = (local >> 8) - start_;  // below the start: a huge number
    if (slot >= slots_.size() || !slots_[slot].used || slots_[slot].tag != (local & 0xff)) return nullptr;
    return &slots_[slot];
  }
  Slot* find(uint32_t local) { return const_cast<Slot*>(static_cast<const Regions*>(this)->find(local)); }

  std::vector<Slot> slots_;
  uint64_t start_;
  uint8_t tag_;
};

}  // namespace mori::ibgda
