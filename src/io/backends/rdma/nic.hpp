// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// NICs of this machine, opened on first use: one protection domain, one completion channel and one port each.
// Which NICs serve a memory is src/core/topology's word.
#pragma once
#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "src/io/backends/rdma/config.hpp"
#include "src/io/backends/rdma/wire.hpp"
#include "src/transport/verbs/memory.hpp"
#include "src/transport/verbs/port.hpp"

namespace mori::io::rdma {

class Nic {
 public:
  /// Throws TransportError in words that say what is missing (port down, no GID, limits).
  Nic(std::shared_ptr<const verbs::Library> library, const std::string& name, uint8_t index,
      const Config& config);
  ~Nic();
  Nic(const Nic&) = delete;
  Nic& operator=(const Nic&) = delete;

  const verbs::Library& v() const { return *library_; }
  const std::string& name() const { return name_; }
  const std::string& who() const { return who_; }  ///< for messages
  uint8_t index() const { return index_; }
  verbs::Context* context() const { return context_; }
  verbs::Pd* pd() const { return pd_; }
  verbs::Channel* channel() const { return channel_; }
  verbs::Cq* passive_cq() const { return passive_cq_; }
  const verbs::DeviceAttr& limits() const { return limits_; }
  uint64_t max_message() const { return port_.max_message; }
  uint8_t port() const { return port_.number; }
  /// Asks the port again: addresses change with links. Throws TransportError while it is down.
  Address address();
  uint8_t gid_index() const { return gid_index_; }
  /// Where it is reached, as `address` said it.
  verbs::Port end(const Address& address) const;
  verbs::Mr* pad() const { return pad_; }

  /// Without REMOTE_ATOMIC: nothing here needs it, and some NICs refuse memory that asks for it.
  verbs::Registrar registrar() const;

  std::atomic<bool> dead{false};  ///< the device said so: never used again

 private:
  [[noreturn]] void fail(const std::string& what) const;
  void release();
  void open(const Config& config);
  verbs::Opened opened() const { return {*library_, context_, name_, who_}; }

  const std::shared_ptr<const verbs::Library> library_;
  const std::string name_;
  const std::string who_;  ///< for messages
  const uint8_t index_;
  const int wished_gid_;
  verbs::Context* context_ = nullptr;
  verbs::Pd* pd_ = nullptr;
  verbs::Channel* channel_ = nullptr;
  verbs::Cq* passive_cq_ = nullptr;  ///< of queue pairs that peers opened; nothing ever completes there
  verbs::Mr* pad_ = nullptr;
  alignas(64) std::array<uint64_t, 8> pad_bytes_{};
  verbs::DeviceAttr limits_{};
  verbs::Port port_;  ///< its GID, address and LID: under the mutex
  std::mutex address_mutex_;
  std::atomic<uint8_t> gid_index_{0};
};

/// The NICs that an engine may use.
class Nics {
 public:
  explicit Nics(const Config& config);

  /// Why there is none at all; empty if there are some.
  const std::string& reason() const { return reason_; }
  const std::vector<std::string>& names() const { return names_; }
  /// Names of the NICs for a memory, best first.
  std::vector<std::string> order(const Region& region) const;
  /// Rate of a port in Gbit/s, 0 if unknown; software NICs say nothing true.
  double rate(const std::string& name, bool* software) const;
  /// Opened, or null with the reason. Stays open as long as this object. Calls `opened` for a fresh one.
  Nic* get(const std::string& name, std::string* why);
  /// Number `index` of this engine, or null if it is not open.
  Nic* at(size_t index) const;
  std::vector<Nic*> open() const;

 private:
  const Config& config_;
  std::shared_ptr<const verbs::Library> library_;
  std::string reason_;
  std::vector<std::string> names_;
  core::Topology topology_;
  mutable std::mutex mutex_;
  std::array<std::unique_ptr<Nic>, kMaxNics> open_;
};

/// Can a NIC reach a peer's port: same link layer; how well the addresses agree decides the order of trying
/// (bits of common prefix), since two rails may be two networks.
int affinity(const Address& mine, const Address& theirs);

}  // namespace mori::io::rdma
