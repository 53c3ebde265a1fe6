// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/core/memory/peer_memory.hpp"

#include <unistd.h>

#include <cstring>
#include <random>
#include <utility>

#include "src/core/runtime/gpu_device.hpp"

namespace mori::core {
namespace {

struct Origin {
  uint64_t process = 0;
  uint64_t token = 0;
  uint64_t address = 0;
};

Origin this_process(uint64_t address) {
  // The token tells apart equal process ids of different containers; the id tells apart forked copies.
  static const uint64_t token = [] {
    std::random_device source;
    return uint64_t(source()) << 32 | source();
  }();
  return {uint64_t(::getpid()), token, address};
}

}  // namespace

std::string pack_ipc(uint64_t base, std::string_view driver_handle) {
  const Origin origin = this_process(base);
  std::string packed(sizeof(origin), '\0');
  std::memcpy(packed.data(), &origin, sizeof(origin));
  return packed.append(driver_handle);
}

PeerMemory::PeerMemory(std::shared_ptr<Device> device, std::string_view packed, uint64_t bytes)
    : device_(std::move(device)), bytes_(bytes) {
  Origin origin;
  if (packed.size() < sizeof(origin)) {
    throw ConfigError("a packed IPC handle of " + std::to_string(packed.size()) + " bytes is none of ours");
  }
  std::memcpy(&origin, packed.data(), sizeof(origin));
  const Origin self = this_process(0);
  if (origin.process == self.process && origin.token == self.token) {
    enable_access(*device_, origin.address);
    address_ = origin.address;
  } else {
    const Shareable memory = device_->import_shareable(-1, packed.substr(sizeof(origin)), bytes);
    address_ = device_->open_ipc(memory);
    opened_ = true;
  }
}

PeerMemory::~PeerMemory() {
  if (!opened_) return;
  try {
    device_->close_ipc(address_);
  } catch (...) {  // a device that failed cannot be tidied up; the process's end does it
  }
}

}  // namespace mori::core
