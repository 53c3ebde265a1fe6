// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Addresses: the GPUs of this process, what a GPU region's owner gives to its peers, how a peer's region is
// reached from a GPU here, and host memory pinned for GPUs.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/core/memory/peer_memory.hpp"
#include "src/core/runtime/copy_queue.hpp"
#include "src/io/backend.hpp"
#include "src/io/backends/p2p/p2p.hpp"

namespace mori::io::p2p {

/// Opens GPUs when they are first needed: an engine without GPU memory never starts a driver.
class Gpus {
 public:
  explicit Gpus(const P2pOptions& options) : options_(options) {}
  /// Throws ConfigError in words that say what is missing.
  std::shared_ptr<core::Device> open(int ordinal);
  /// The GPU of this process at a PCI address, -1 if it has none there.
  int at(const std::string& bus_id);

 private:
  core::Kind kind();

  const P2pOptions options_;
  std::mutex mutex_;  ///< of what follows
  std::optional<core::Kind> kind_;
  std::map<int, std::shared_ptr<core::Device>> devices_;
};

/// Host memory pinned for the GPUs of this process, until the last holder goes.
class Pin {
 public:
  Pin(std::shared_ptr<core::Device> device, uint64_t address, uint64_t bytes);
  ~Pin();
  Pin(const Pin&) = delete;
  Pin& operator=(const Pin&) = delete;

  /// Of a byte of the range, for a GPU.
  uint64_t on_gpu(uint64_t address) const { return pinned_.device_address + (address - address_); }
  bool covers(uint64_t address, uint64_t bytes) const {
    return address >= address_ && address + bytes <= address_ + bytes_;
  }
  bool touches(uint64_t address, uint64_t bytes) const;
  void keep(std::shared_ptr<Pin> other) { shared_pages_.push_back(std::move(other)); }

 private:
  std::shared_ptr<core::Device> device_;
  uint64_t address_;
  uint64_t bytes_;
  core::PinnedHost pinned_;
  std::vector<std::shared_ptr<Pin>> shared_pages_;  ///< whose pages this range lies in too
};

class Pins {
 public:
  std::shared_ptr<Pin> pin(const std::shared_ptr<core::Device>& device, uint64_t address, uint64_t bytes);

 private:
  std::mutex mutex_;
  std::vector<std::weak_ptr<Pin>> pins_;
};

/// What the owner of a GPU region gives away: enough for other processes if the driver has an IPC handle for
/// the allocation, for this process in any case.
std::string attach_gpu(core::Device& device, const Region& region);

/// A peer's region as the GPUs of this process see it.
class P2pRoute final : public Route {
 public:
  /// Throws core::Error with the reason when the region cannot be reached.
  P2pRoute(const RemoteRegion& remote, bool same_process, const std::string& attachment);

  /// Address of the region's first byte for kernels and copies of `device`; opened at the first call.
  uint64_t address(const std::shared_ptr<core::Device>& device, Pins& pins);
  /// Closes what was opened. Nothing may use it any more.
  void close();

  bool on_gpu() const { return on_gpu_; }
  /// PCI address of the region's GPU.
  const std::string& bus_id() const { return bus_id_; }

  /// Under the backend's lock. A job keeps it, since the route may go as soon as the job was reported.
  struct Use {
    bool revoked = false;
    uint32_t jobs = 0;
  };
  const std::shared_ptr<Use> use = std::make_shared<Use>();

 private:
  const bool on_gpu_;
  const uint64_t bytes_;
  uint64_t host_address_ = 0;
  uint64_t offset_ = 0;
  uint64_t allocation_bytes_ = 0;
  std::string bus_id_;
  std::string packed_;
  std::mutex mutex_;
  std::map<int, std::unique_ptr<core::PeerMemory>> opened_;  ///< by GPU
  std::shared_ptr<Pin> pin_;
};

}  // namespace mori::io::p2p
