// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Opening GPUs, and what they say of themselves and of each other.
#include "src/core/runtime/gpu_device.hpp"

#include <map>
#include <mutex>
#include <tuple>

#include "src/core/runtime/gpu_device_class.hpp"

namespace mori::core {

void gpu_fail(const GpuDriver& driver, Status status, const std::string& action) {
  driver.forget_error();
  const std::string text = action + " failed: " + driver.error_text(status) + " (" + driver.library + " " +
                           std::to_string(status) + ")";
  if (status == kOutOfMemory) throw CapacityError(text);
  throw TransportError(text);
}

void GpuDevice::read_properties() {
  char text[256] = {};
  check(driver_.name(text, sizeof(text), ordinal_), "asking for the GPU's name");
  properties_.name = text;
  properties_.arch = driver_.architecture(ordinal_);
  char bus[32] = {};
  check(driver_.pci_bus_id(bus, sizeof(bus), ordinal_), "asking for the PCI address");
  for (char* c = bus; *c != 0; ++c) properties_.pci_bus_id += *c >= 'A' && *c <= 'F' ? char(*c + 32) : *c;
  const GpuAttributes& ids = driver_.attributes;
  properties_.processors = uint32_t(attribute(ids.processors));
  properties_.warp_size = uint32_t(attribute(ids.warp_size));
  properties_.max_warps = uint32_t(attribute(ids.max_threads)) / properties_.warp_size;
  properties_.shared_bytes = uint32_t(attribute(ids.shared_bytes));
  shared_limit_ = ids.shared_optin_bytes >= 0 ? uint32_t(attribute(ids.shared_optin_bytes)) : 0;
  size_t bytes = 0;
  check(driver_.total_memory(&bytes, ordinal_), "asking for the size of memory");
  properties_.memory_bytes = bytes;
  properties_.clock_hz = driver_.clock_hz(ordinal_);
}

namespace {

const GpuDriver& require_driver(Kind kind) {
  std::string why;
  const GpuDriver* driver = gpu_driver(kind, &why);
  if (driver == nullptr) throw ConfigError(why);
  return *driver;
}

}  // namespace

std::shared_ptr<Device> open_gpu(Kind kind, int ordinal, const DeviceOptions& options) {
  static std::mutex mutex;
  static std::map<std::tuple<Kind, int, std::string>, std::weak_ptr<Device>> devices;
  const GpuDriver& driver = require_driver(kind);
  const int count = gpu_count(kind, nullptr);
  if (ordinal < 0 || ordinal >= count) {
    throw ConfigError("GPU " + std::to_string(ordinal) + " does not exist: this process sees " +
                      std::to_string(count) + " " + kind_name(kind) + " device" + (count == 1 ? "" : "s"));
  }
  const std::lock_guard lock(mutex);
  std::weak_ptr<Device>& known = devices[{kind, ordinal, options.kernel_dir}];
  std::shared_ptr<Device> device = known.lock();
  if (device == nullptr) {
    device = std::make_shared<GpuDevice>(driver, ordinal, options);
    known = device;
  }
  return device;
}

int gpu_count(Kind kind, std::string* why) {
  const GpuDriver* driver = gpu_driver(kind, why);
  int count = 0;
  if (driver == nullptr || driver->device_count(&count) != 0) return 0;
  return count;
}

PeerAttributes gpu_peer_attributes(Kind kind, int from, int to) {
  if (from == to) return {.access = true, .native_atomics = true, .performance_rank = 0};
  const GpuDriver& driver = require_driver(kind);
  const auto ask = [&](int id) {
    int value = 0;
    if (const Status status = driver.peer_attribute(&value, id, from, to)) {
      gpu_fail(driver, status, "asking about GPUs " + std::to_string(from) + " and " + std::to_string(to));
    }
    return value;
  };
  return {.access = ask(driver.attributes.peer_access) != 0,
          .native_atomics = ask(driver.attributes.peer_atomics) != 0,
          .performance_rank = ask(driver.attributes.peer_performance_rank)};
}

}  // namespace mori::core
