// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// A GPU of either vendor behind the Device contract, and the questions about other people's allocations that
// registering memory asks. What device.cpp dispatches to for Kind::cuda and Kind::hip.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "src/core/runtime/device.hpp"

namespace mori::core {

/// The GPU, one object per kind, ordinal and kernel folder within the process while anybody holds it.
/// ConfigError in words that say what is missing.
std::shared_ptr<Device> open_gpu(Kind kind, int ordinal, const DeviceOptions& options);
int gpu_count(Kind kind, std::string* why);
PeerAttributes gpu_peer_attributes(Kind kind, int from, int to);

/// Waits for all streams of the device. On the CPU only for the default one.
void synchronize_all(Device& device);

/// The allocation that an address lies in, as its driver knows it.
struct AllocationInfo {
  uint64_t base = 0;
  uint64_t bytes = 0;
  bool ipc_capable = false;  ///< false for memory of mapped segments, of pools, and of the CPU
};
AllocationInfo allocation_info(Device& device, uint64_t address);
/// A handle for the whole allocation that starts at `base`, for import_shareable and open_ipc elsewhere.
std::string export_ipc(Device& device, uint64_t base);
/// Lets the device reach an allocation of another device of this process. Mapped memory does not need it.
void enable_access(Device& device, uint64_t address);

}  // namespace mori::core
