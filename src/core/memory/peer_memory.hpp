// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Whole allocations shared by the driver's IPC handles: where memory cannot be mapped at a chosen address,
// and for tensors that somebody else allocated. Ranks may be threads of one process, which cannot open their
// own handles: what travels says which process made it, and there the address itself is used.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "src/core/runtime/device.hpp"

namespace mori::core {

/// What to send for the allocation that starts at `base`, given its driver handle.
std::string pack_ipc(uint64_t base, std::string_view driver_handle);

/// A peer's allocation as reachable here, closed when the last holder goes.
class PeerMemory {
 public:
  /// `packed` is what the peer's pack_ipc() gave.
  PeerMemory(std::shared_ptr<Device> device, std::string_view packed, uint64_t bytes);
  ~PeerMemory();
  PeerMemory(const PeerMemory&) = delete;
  PeerMemory& operator=(const PeerMemory&) = delete;

  uint64_t address() const { return address_; }
  uint64_t bytes() const { return bytes_; }
  const std::shared_ptr<Device>& device() const { return device_; }

 private:
  std::shared_ptr<Device> device_;
  uint64_t address_ = 0;
  uint64_t bytes_ = 0;
  bool opened_ = false;
};

}  // namespace mori::core
