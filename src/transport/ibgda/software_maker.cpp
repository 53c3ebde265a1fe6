// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include <algorithm>
#include <cstring>

#include "src/core/errors.hpp"
#include "src/transport/ibgda/queue_maker.hpp"
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
    const auto ranks = uint32_t(options.movers.size());
    if (std::find(options.movers.begin(), options.movers.end(), MoverKind::tcp) != options.movers.end()) {
      tcp_ = std::make_unique<tcp::TcpMover>(tcp::TcpOptions{
          .rank = options.rank, .world = ranks, .address = options.address, .timeout = options.timeout});
    }
  }
  ~SoftwareMaker() override {
    nic_.stop();
    for (const core::HostMemory& m : memory_) device_->free_host(m);
  }

  NicKind kind() const override { return NicKind::software; }
  RegionKeys add_region(uint64_t begin, uint64_t bytes, bool) override {
    return nic_.add_region(begin, bytes);
  }
  void resize_region(uint32_t key, uint64_t bytes) override { nic_.resize_region(key, bytes); }
  void remove_region(uint32_t key) override { nic_.remove_region(key); }
  void create_queue(Queue* queue, uint32_t depth, uint32_t peer) override {
    const bool far = options_.movers[peer] == MoverKind::tcp;
    const uint32_t number = nic_.create_queue(
        queue,
        {.family = options_.family, .depth = depth, .peer = peer, .mover = far ? tcp_.get() : nullptr});
    if (far) tcp_->add_queue(number, peer);
  }
  /// shm: a peer's requests come through its own NIC, which has the window mapped, and needs nothing.
  std::string end(const Queue*) const override {
    if (tcp_ == nullptr) return {};
    return std::string(reinterpret_cast<const char*>(&tcp_->door()), sizeof(tcp::Door));
  }
  void connect(Queue* queue, const std::string& end) override {
    if (options_.movers[queue->peer] != MoverKind::tcp) return;
    tcp::Door door;
    if (end.size() != sizeof door) {
      throw core::ConfigError("rank " + std::to_string(queue->peer) + " offers no address, and rank " +
                              std::to_string(options_.rank) + " reaches it by tcp: MORI_IBGDA_MOVER differs");
    }
    std::memcpy(&door, end.data(), sizeof door);
    tcp_->connect(queue->peer, door);
  }
  void point(const Queue* queue, const PeerWindow& w) override {
    nic_.connect(queue, {w.address, w.bytes, w.rkey, w.mapped});
  }
  void start() override { nic_.start(); }
  void stop() override { nic_.stop(); }
  std::vector<std::string> violations() const override { return nic_.violations(); }
  std::string trouble(uint32_t peer) const override { return tcp_ == nullptr ? "" : tcp_->trouble(peer); }

 private:
  std::shared_ptr<core::Device> device_;
  SoftwareOptions options_;
  std::vector<core::HostMemory> memory_;
  std::unique_ptr<tcp::TcpMover> tcp_;
  SoftNic nic_;
};

}  // namespace

std::unique_ptr<QueueMaker> make_software(std::shared_ptr<core::Device> device,
                                          const SoftwareOptions& options) {
  return std::make_unique<SoftwareMaker>(std::move(device), options);
}

}  // namespace mori::ibgda
