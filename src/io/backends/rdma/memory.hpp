// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Registered memory: each region once per NIC that serves it, for as long as it is attached. One region has
// one key of its own per NIC, never one of a larger neighbour: the NIC's bounds are the region's bounds.
#pragma once
#include <array>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "src/io/backends/rdma/nic.hpp"

namespace mori::io::rdma {

/// A region's registrations. The NICs outlive it.
class LocalMemory {
 public:
  LocalMemory() = default;
  ~LocalMemory();
  LocalMemory(const LocalMemory&) = delete;
  LocalMemory& operator=(const LocalMemory&) = delete;

  const verbs::Mr* on(size_t nic) const { return nic < mrs_.size() ? mrs_[nic] : nullptr; }
  /// The NICs it is registered with, best first.
  const std::vector<Nic*>& nics() const { return nics_; }
  const std::string& reason() const { return reason_; }  ///< why a NIC is missing
  bool host() const { return host_; }

 private:
  friend class Memory;
  std::array<verbs::Mr*, kMaxNics> mrs_{};
  std::vector<Nic*> nics_;
  std::string reason_;
  bool host_ = true;
};

class Memory {
 public:
  Memory(Nics& nics, const Config& config) : nics_(nics), config_(config) {}

  /// Registers with the first NICs of the region's order that take it; pins on several NICs at once.
  std::shared_ptr<const LocalMemory> attach(const Region& region);
  void detach(uint64_t region);
  /// Null if it was never attached.
  std::shared_ptr<const LocalMemory> find(uint64_t region) const;
  size_t count() const;
  /// For the initiator: where and with which keys.
  std::string attachment(const Region& region, const LocalMemory& memory) const;

 private:
  verbs::Mr* register_with(Nic& nic, const Region& region, std::string* why) const;

  Nics& nics_;
  const Config& config_;
  mutable std::mutex mutex_;
  std::unordered_map<uint64_t, std::shared_ptr<const LocalMemory>> regions_;
};

}  // namespace mori::io::rdma
