// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/backends/p2p/p2p_memory.hpp"

#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <utility>

#include "src/core/runtime/gpu_device.hpp"

namespace mori::io::p2p {
namespace {

/// Begins an attachment; what pack_ipc() made follows. Both processes run under one kernel.
struct Header {
  uint32_t version = 1;
  uint32_t exported = 0;  ///< 0: no IPC handle, good for the owner's process only
  uint64_t offset = 0;    ///< of the region in its allocation
  uint64_t allocation_bytes = 0;
  char bus_id[24] = {};  ///< PCI address of the GPU: ordinals differ between processes
};

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

}  // namespace

core::Kind Gpus::kind() {
  if (kind_) return *kind_;
  if (options_.kind) return *(kind_ = options_.kind);
  std::string cuda, hip;
  if (core::device_count(core::Kind::cuda, &cuda) > 0) return *(kind_ = core::Kind::cuda);
  if (core::device_count(core::Kind::hip, &hip) > 0) return *(kind_ = core::Kind::hip);
  throw core::ConfigError(cuda + "; " + hip);
}

std::shared_ptr<core::Device> Gpus::open(int ordinal) {
  const std::lock_guard lock(mutex_);
  std::shared_ptr<core::Device>& device = devices_[ordinal];
  if (device == nullptr) device = core::open_device(kind(), ordinal, {.kernel_dir = options_.kernel_dir});
  return device;
}

int Gpus::at(const std::string& bus_id) {
  int count = 0;
  {
    const std::lock_guard lock(mutex_);
    count = core::device_count(kind());
  }
  for (int ordinal = 0; ordinal < count; ++ordinal) {
    if (lower(open(ordinal)->properties().pci_bus_id) == lower(bus_id)) return ordinal;
  }
  return -1;
}

Pin::Pin(std::shared_ptr<core::Device> device, uint64_t address, uint64_t bytes)
    : device_(std::move(device)),
      address_(address),
      bytes_(bytes),
      pinned_(core::pin_host(*device_, address, bytes)) {}

Pin::~Pin() {
  if (pinned_.mine) core::unpin_host(*device_, address_);
}

bool Pin::touches(uint64_t address, uint64_t bytes) const {
  const uint64_t page = uint64_t(::sysconf(_SC_PAGESIZE));
  const auto first = [&](uint64_t at) { return at / page; };
  return first(address) <= first(address_ + bytes_ - 1) && first(address_) <= first(address + bytes - 1);
}

std::shared_ptr<Pin> Pins::pin(const std::shared_ptr<core::Device>& device, uint64_t address,
                               uint64_t bytes) {
  const std::lock_guard lock(mutex_);
  std::erase_if(pins_, [](const std::weak_ptr<Pin>& pin) { return pin.expired(); });
  std::vector<std::shared_ptr<Pin>> neighbours;
  for (const std::weak_ptr<Pin>& weak : pins_) {
    std::shared_ptr<Pin> pin = weak.lock();
    if (pin == nullptr) continue;
    if (pin->covers(address, bytes)) return pin;
    if (pin->touches(address, bytes)) neighbours.push_back(std::move(pin));
  }
  auto pin = std::make_shared<Pin>(device, address, bytes);
  for (std::shared_ptr<Pin>& other : neighbours) pin->keep(std::move(other));
  pins_.push_back(pin);
  return pin;
}

std::string attach_gpu(core::Device& device, const Region& region) {
  Header header;
  const core::AllocationInfo info = core::allocation_info(device, region.address);
  // A handle opens an allocation, so the region must lie in one: segments of an expandable allocator do not.
  const bool whole = info.ipc_capable && region.address + region.bytes <= info.base + info.bytes;
  header.exported = whole;
  header.offset = whole ? region.address - info.base : 0;
  header.allocation_bytes = whole ? info.bytes : region.bytes;
  device.properties().pci_bus_id.copy(header.bus_id, sizeof(header.bus_id) - 1);
  std::string out(sizeof(header), '\0');
  std::memcpy(out.data(), &header, sizeof(header));
  return out + (whole ? core::pack_ipc(info.base, core::export_ipc(device, info.base))
                      : core::pack_ipc(region.address, ""));
}

P2pRoute::P2pRoute(const RemoteRegion& remote, bool same_process, const std::string& attachment)
    : on_gpu_(remote.location == Location::gpu), bytes_(remote.bytes) {
  if (!on_gpu_) {
    if (!same_process) throw core::TransportError("host memory of another process is not mapped for GPUs");
    host_address_ = remote.address;
    return;
  }
  Header header;
  if (attachment.size() < sizeof(header)) {
    throw core::TransportError("the peer cannot share this GPU memory");
  }
  std::memcpy(&header, attachment.data(), sizeof(header));
  if (header.version != 1) throw core::TransportError("the peer speaks another version of p2p");
  if (header.offset > header.allocation_bytes || bytes_ > header.allocation_bytes - header.offset) {
    throw core::TransportError("the peer's attachment does not fit its descriptor");
  }
  if (header.exported == 0 && !same_process) {
    throw core::TransportError(
        "the driver has no IPC handle for this GPU memory (allocated from a pool, or in expandable "
        "segments)");
  }
  header.bus_id[sizeof(header.bus_id) - 1] = 0;
  bus_id_ = header.bus_id;
  offset_ = header.offset;
  allocation_bytes_ = header.allocation_bytes;
  packed_ = attachment.substr(sizeof(header));
}

uint64_t P2pRoute::address(const std::shared_ptr<core::Device>& device, Pins& pins) {
  const std::lock_guard lock(mutex_);
  if (!on_gpu_) {
    if (pin_ == nullptr) pin_ = pins.pin(device, host_address_, bytes_);
    return pin_->on_gpu(host_address_);
  }
  std::unique_ptr<core::PeerMemory>& memory = opened_[device->ordinal()];
  if (memory == nullptr) {
    memory = std::make_unique<core::PeerMemory>(device, packed_, allocation_bytes_);
  }
  return memory->address() + offset_;
}

void P2pRoute::close() {
  const std::lock_guard lock(mutex_);
  opened_.clear();
  pin_.reset();
}

}  // namespace mori::io::p2p
