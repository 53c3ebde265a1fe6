// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cstring>
#include <map>

#include "src/core/errors.hpp"
#include "src/transport/ibgda/queue_maker.hpp"
#include "src/transport/ibgda/rdma/verbs_mover.hpp"
#include "src/transport/ibgda/softnic/softnic.hpp"
#include "src/transport/ibgda/tcp/tcp_mover.hpp"

namespace mori::ibgda {
namespace {

/// The software NIC and its memory.
class SoftwareMaker final : public QueueMaker {
 public:
  SoftwareMaker(std::shared_ptr<core::Device> device, const SoftwareOptions& options)
      : device_(std::move(device)), options_(options), nic_([this](uint64_t bytes) {
          memory_.push_back(device_->allocate_host(bytes));
          return memory_.back().device;
        }) {
    if (any(MoverKind::tcp)) {
      tcp_ = std::make_unique<tcp::TcpMover>(tcp::TcpOptions{.rank = options.rank,
                                                             .world = uint32_t(options.movers.size()),
                                                             .address = options.address,
                                                             .timeout = options.timeout});
    }
    if (any(MoverKind::verbs)) {
      if (options.family == Family::mlx5) {
        throw core::ConfigError(
            "provider mlx5 has atomics of 4 bytes and with masks, which the mover verbs cannot carry: "
            "bnxt_re and "
            "ionic are allowed (MORI_IBGDA_PROVIDER)");
      }
      verbs_ = std::make_unique<rdma::VerbsMover>(
          rdma::VerbsOptions{.device = options.device, .library = {}, .timeout = options.timeout});
    }
  }
  ~SoftwareMaker() override {
    nic_.stop();
    for (const core::HostMemory& m : memory_) device_->free_host(m);
  }

  NicKind kind() const override { return NicKind::software; }
  bool fixed() const override { return verbs_ != nullptr; }
  RegionKeys add_region(uint64_t begin, uint64_t bytes, bool) override {
    const RegionKeys keys = nic_.add_region(begin, bytes);
    if (verbs_ == nullptr) return keys;
    try {
      verbs_->add_region(keys.local, begin, bytes);
    } catch (...) {
      nic_.remove_region(keys.local);
      throw;
    }
    return keys;
  }
  void resize_region(uint32_t key, uint64_t bytes) override { nic_.resize_region(key, bytes); }
  void remove_region(uint32_t key) override {
    nic_.remove_region(key);
    if (verbs_ != nullptr) verbs_->remove_region(key);
  }
  void create_queue(Queue* queue, uint32_t depth, uint32_t peer) override {
    const MoverKind kind = options_.movers[peer];
    Mover* mover = nullptr;
    if (kind == MoverKind::tcp) mover = tcp_.get();
    if (kind == MoverKind::verbs) mover = verbs_.get();
    const uint32_t number = numbers_[queue] =
        nic_.create_queue(queue, {.family = options_.family, .depth = depth, .peer = peer, .mover = mover});
    if (kind == MoverKind::tcp) tcp_->add_queue(number, peer);
    if (kind == MoverKind::verbs) verbs_->add_queue(number, peer);
  }
  /// shm: a peer's requests come through its own NIC, which has the window mapped, and needs nothing.
  std::string end(const Queue* queue) const override {
    const MoverKind kind = options_.movers[queue->peer];
    if (kind == MoverKind::verbs) return bytes_of(verbs_->door(numbers_.at(queue)));
    // all ends are as long
    return tcp_ != nullptr ? bytes_of(tcp_->door()) : verbs_ != nullptr ? bytes_of(rdma::QueueDoor{}) : "";
  }
  void connect(Queue* queue, const std::string& end) override {
    const MoverKind kind = options_.movers[queue->peer];
    if (kind == MoverKind::tcp) tcp_->connect(queue->peer, read<tcp::Door>(queue->peer, end));
    if (kind == MoverKind::verbs)
      verbs_->connect(numbers_.at(queue), read<rdma::QueueDoor>(queue->peer, end));
  }
  void point(const Queue* queue, const PeerWindow& w) override {
    const RemoteWindow window{w.address, w.bytes, w.rkey, w.mapped};
    nic_.connect(queue, window);
    if (options_.movers[queue->peer] == MoverKind::verbs) verbs_->point(numbers_.at(queue), window);
  }
  void start() override { nic_.start(); }
  void stop() override { nic_.stop(); }
  std::vector<std::string> violations() const override { return nic_.violations(); }
  std::string trouble(uint32_t peer) const override {
    return tcp_ != nullptr ? tcp_->trouble(peer) : verbs_ != nullptr ? verbs_->trouble(peer) : "";
  }

 private:
  bool any(MoverKind kind) const {
    return std::find(options_.movers.begin(), options_.movers.end(), kind) != options_.movers.end();
  }
  template <class T>
  static std::string bytes_of(const T& plain) {
    return {reinterpret_cast<const char*>(&plain), sizeof plain};
  }
  template <class T>
  T read(uint32_t peer, const std::string& bytes) const {
    T plain;
    if (bytes.size() != sizeof plain) {
      throw core::ConfigError("rank " + std::to_string(peer) + " offers no address that rank " +
                              std::to_string(options_.rank) + " could use: MORI_IBGDA_MOVER differs");
    }
    std::memcpy(&plain, bytes.data(), sizeof plain);
    return plain;
  }

  std::shared_ptr<core::Device> device_;
  SoftwareOptions options_;
  std::vector<core::HostMemory> memory_;
  std::map<const Queue*, uint32_t> numbers_;
  std::unique_ptr<tcp::TcpMover> tcp_;
  std::unique_ptr<rdma::VerbsMover> verbs_;
  SoftNic nic_;
};

}  // namespace

std::unique_ptr<QueueMaker> make_software(std::shared_ptr<core::Device> device,
                                          const SoftwareOptions& options) {
  return std::make_unique<SoftwareMaker>(std::move(device), options);
}

}  // namespace mori::ibgda
