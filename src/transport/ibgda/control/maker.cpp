// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include <cstring>

#include "src/core/errors.hpp"
#include "src/transport/ibgda/control/nic.hpp"
#include "src/transport/ibgda/queue_maker.hpp"

namespace mori::ibgda {
namespace {

class HardwareMaker final : public QueueMaker {
 public:
  HardwareMaker(const std::shared_ptr<core::Device>& device, Family family, const NicOptions& options)
      : on_gpu_(device->kind() != core::Kind::cpu), nic_(make_mapper(device), options) {
    if (family != Family::none && family != nic_.family()) {
      throw core::ConfigError(options.name + " is of another family than the one asked for (provider)");
    }
  }

  NicKind kind() const override { return NicKind::hardware; }
  bool fixed() const override { return true; }
  RegionKeys add_region(uint64_t begin, uint64_t bytes, bool of_device) override {
    return nic_.add_region(begin, bytes, of_device && on_gpu_);
  }
  void resize_region(uint32_t key, uint64_t bytes) override {
    const uint64_t have = nic_.region_bytes(key);
    if (bytes == have) return;
    throw core::ConfigError("a NIC of hardware has the heap registered as it was, " + std::to_string(have) +
                            " bytes; it cannot become " + std::to_string(bytes) +
                            ": ask for enough from the start (MORI_HEAP_BYTES)");
  }
  void remove_region(uint32_t key) override { nic_.remove_region(key); }
  void create_queue(Queue* queue, uint32_t depth, uint32_t peer) override {
    nic_.create_queue(queue, {.depth = depth, .peer = peer});
  }
  std::string end(const Queue* queue) const override {
    const QueueEnd end = nic_.end(queue);
    return {reinterpret_cast<const char*>(&end), sizeof end};
  }
  void connect(Queue* queue, const std::string& bytes) override {
    QueueEnd theirs;
    if (bytes.size() != sizeof theirs) {
      throw core::ConfigError("a peer's end of a queue has " + std::to_string(bytes.size()) +
                              " bytes instead of " + std::to_string(sizeof theirs));
    }
    std::memcpy(static_cast<void*>(&theirs), bytes.data(), sizeof theirs);
    nic_.connect(queue, theirs);
  }
  void point(const Queue*, const PeerWindow&) override {}  // the peer's NIC checks its rkey
  void start() override {}
  void stop() override { nic_.stop(); }

 private:
  const bool on_gpu_;
  HardwareNic nic_;
};

}  // namespace

std::unique_ptr<QueueMaker> make_hardware(std::shared_ptr<core::Device> device, Family family,
                                          const std::string& name) {
  NicOptions options;
  options.name = name;
  return std::make_unique<HardwareMaker>(device, family, options);
}

}  // namespace mori::ibgda
