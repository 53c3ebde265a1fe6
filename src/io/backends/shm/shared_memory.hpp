// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Host memory that peers on this host can map: an anonymous file (memfd) with a sealed size. It has no name,
// so nothing outlives its holders; the descriptor is closed on exec.
#pragma once
#include <cstdint>
#include <memory>

#include "src/io/fd.hpp"

namespace mori::io {

class SharedMemory {
 public:
  /// Zeroed. `prefault` touches all pages here rather than at first use. Throws core::ConfigError for the
  /// size, core::CapacityError when there is no room.
  static std::shared_ptr<SharedMemory> create(uint64_t bytes, bool prefault);
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  uint64_t address() const { return address_; }
  uint64_t bytes() const { return bytes_; }
  int fd() const { return fd_.get(); }

 private:
  SharedMemory(Fd fd, uint64_t address, uint64_t bytes)
      : fd_(std::move(fd)), address_(address), bytes_(bytes) {}
  Fd fd_;
  uint64_t address_;
  uint64_t bytes_;
};

}  // namespace mori::io
