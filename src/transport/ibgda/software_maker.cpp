// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/transport/ibgda/queue_maker.hpp"
#include "src/transport/ibgda/softnic/softnic.hpp"

namespace mori::ibgda {
namespace {

/// The software NIC and its memory.
class SoftwareMaker final : public QueueMaker {
 public:
  SoftwareMaker(std::shared_ptr<core::Device> device, Family family)
      : device_(std::move(device)), family_(family), nic_([this](uint64_t bytes) {
          memory_.push_back(device_->allocate_host(bytes));
          return memory_.back().device;
        }) {}
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
    nic_.create_queue(queue, {.family = family_, .depth = depth, .peer = peer});
  }
  /// A peer's requests come through its own NIC, which has the window mapped.
  std::string end(const Queue*) const override { return {}; }
  void connect(Queue*, const std::string&) override {}
  void point(const Queue* queue, const PeerWindow& w) override {
    nic_.connect(queue, {w.address, w.bytes, w.rkey, w.mapped});
  }
  void start() override { nic_.start(); }
  void stop() override { nic_.stop(); }
  std::vector<std::string> violations() const override { return nic_.violations(); }

 private:
  std::shared_ptr<core::Device> device_;
  Family family_;
  std::vector<core::HostMemory> memory_;
  SoftNic nic_;
};

}  // namespace

std::unique_ptr<QueueMaker> make_software(std::shared_ptr<core::Device> device, Family family) {
  return std::make_unique<SoftwareMaker>(std::move(device), family);
}

}  // namespace mori::ibgda
