// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Memory that peers reach: mapped at addresses of our choice where driver and machine can, by IPC handle of a
// whole allocation otherwise, and the questions about allocations that others made.
#include <fcntl.h>
#include <unistd.h>

#include <cstring>
#include <utility>

#include "src/core/runtime/gpu_device_class.hpp"

namespace mori::core {
namespace {

constexpr unsigned kLazyEnablePeerAccess = 1;
constexpr int kFileDescriptor = 1;
constexpr int kPointerDevice = 9;
constexpr int kPointerIpcCapable = 10;
constexpr int kGranularityRecommended = 1;

}  // namespace

// Support is what one small allocation shows, not what attributes promise: containers and virtual machines
// refuse exports that the GPU could do.
void GpuDevice::probe_mapping() {
  const GpuAttributes& ids = driver_.attributes;
  if (driver_.mapped_create == nullptr || !driver_.mapping_trusted || attribute(ids.can_map) == 0 ||
      attribute(ids.can_export_fd) == 0) {
    return;
  }
  map_for_rdma_ = ids.can_map_for_rdma >= 0 && attribute(ids.can_map_for_rdma) != 0;
  const Current current = activate();
  const MappedProperties properties = mapped_properties();
  size_t granularity = 0;
  uint64_t handle = 0;
  int fd = -1;
  if (driver_.mapped_granularity(&granularity, &properties, kGranularityRecommended) == 0 &&
      driver_.mapped_create(&handle, granularity, &properties, 0) == 0) {
    if (driver_.mapped_export(&fd, handle, kFileDescriptor, 0) == 0) {
      can_map_ = true;
      granularity_ = granularity;
      ::close(fd);
    }
    driver_.mapped_release(handle);
  }
  driver_.forget_error();
}

Shareable GpuDevice::create_ipc(size_t bytes) {
  const Current current = activate();
  Shareable memory;
  memory.bytes = bytes;
  check(driver_.malloc_shared(&memory.native, bytes),
        "allocating " + std::to_string(bytes) + " bytes of memory with an IPC handle");
  try {
    clear(memory.native, bytes);
    memory.ipc = export_ipc(memory.native);
  } catch (...) {
    driver_.free(memory.native);
    throw;
  }
  return memory;
}

Shareable GpuDevice::create_shareable(size_t bytes) {
  if (!can_map_) return create_ipc(bytes);
  const Current current = activate();
  const std::string action = "allocating " + std::to_string(bytes) + " bytes of shareable memory";
  Shareable memory;
  memory.bytes = bytes;
  const MappedProperties properties = mapped_properties();
  check(driver_.mapped_create(&memory.native, bytes, &properties, 0), action);
  uint64_t address = 0;
  try {
    check(driver_.mapped_export(&memory.fd, memory.native, kFileDescriptor, 0), action);
    ::fcntl(memory.fd, F_SETFD, FD_CLOEXEC);
    address = reserve(bytes);  // only to clear it: drivers promise nothing about what fresh memory holds
    map(address, memory);
    clear(address, bytes);
    check(driver_.mapped_unmap(address, bytes), action);
    check(driver_.mapped_unreserve(address, bytes), action);
  } catch (...) {
    if (address != 0) {
      driver_.mapped_unmap(address, bytes);
      driver_.mapped_unreserve(address, bytes);
    }
    driver_.mapped_release(memory.native);
    if (memory.fd >= 0) ::close(memory.fd);
    driver_.forget_error();
    throw;
  }
  return memory;
}

Shareable GpuDevice::import_shareable(int fd, std::string_view ipc, size_t bytes) {
  Shareable memory;
  memory.bytes = bytes;
  if (fd < 0) {
    memory.ipc = ipc;
    return memory;
  }
  const Current current = activate();
  memory.fd = ::fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (memory.fd < 0) throw TransportError("fd=" + std::to_string(fd) + " is not an open file descriptor");
  void* argument = reinterpret_cast<void*>(static_cast<intptr_t>(memory.fd));
  if (const Status status = driver_.mapped_import(&memory.native, argument, kFileDescriptor)) {
    ::close(memory.fd);
    gpu_fail(driver_, status, "importing a peer's memory");
  }
  return memory;
}

void GpuDevice::map(uint64_t address, const Shareable& memory) {
  const Current current = activate();
  const std::string action = "mapping " + std::to_string(memory.bytes) + " bytes";
  check(driver_.mapped_map(address, memory.bytes, 0, memory.native, 0), action);
  const MappedAccess access{.location = ordinal_};
  if (const Status status = driver_.mapped_access(address, memory.bytes, &access, 1)) {
    driver_.mapped_unmap(address, memory.bytes);
    gpu_fail(driver_, status, action + " for access by GPU " + std::to_string(ordinal_));
  }
}

void GpuDevice::release(Shareable& memory) {
  const Current current = activate();
  const Shareable old = std::exchange(memory, {});
  if (old.fd >= 0) ::close(old.fd);
  if (old.native == 0) return;
  check(old.ipc.empty() ? driver_.mapped_release(old.native) : driver_.free(old.native), "releasing memory");
}

// Drivers differ in what opening a handle twice does; here it is opened once and counted.
uint64_t GpuDevice::open_ipc(const Shareable& memory) {
  IpcHandle handle;
  if (memory.ipc.size() != sizeof(handle)) {
    throw ConfigError("an IPC handle has " + std::to_string(sizeof(handle)) + " bytes, this one " +
                      std::to_string(memory.ipc.size()));
  }
  const std::lock_guard lock(opened_mutex_);
  Opened& opened = opened_[memory.ipc];
  if (opened.users == 0) {
    const Current current = activate();
    std::memcpy(&handle, memory.ipc.data(), sizeof(handle));
    check(driver_.ipc_open(&opened.address, handle, kLazyEnablePeerAccess), "opening a peer's memory");
  }
  ++opened.users;
  return opened.address;
}

void GpuDevice::close_ipc(uint64_t address) {
  const std::lock_guard lock(opened_mutex_);
  for (auto entry = opened_.begin(); entry != opened_.end(); ++entry) {
    if (entry->second.address != address || entry->second.users == 0) continue;
    if (--entry->second.users != 0) return;
    opened_.erase(entry);
    const Current current = activate();
    return check(driver_.ipc_close(address), "closing a peer's memory");
  }
  throw ConfigError("no peer's memory is open at this address");
}

AllocationInfo GpuDevice::allocation_info(uint64_t address) {
  const Current current = activate();
  AllocationInfo info;
  size_t bytes = 0;
  check(driver_.address_range(&info.base, &bytes, address), "asking for the allocation of an address");
  info.bytes = bytes;
  uint32_t capable = 0;
  if (driver_.pointer_attribute(&capable, kPointerIpcCapable, address) == 0) {
    info.ipc_capable = capable != 0;
  } else {
    IpcHandle handle;
    info.ipc_capable = driver_.ipc_get(&handle, info.base) == 0;
    driver_.forget_error();
  }
  return info;
}

void GpuDevice::enable_access(uint64_t address) {
  const Current current = activate();
  int owner = ordinal_;
  check(driver_.pointer_attribute(&owner, kPointerDevice, address), "asking for the GPU of an address");
  if (owner == ordinal_) return;
  const Status status = driver_.enable_peer(owner);
  if (status == kPeerAlreadyEnabled) return driver_.forget_error();
  check(status, "access of GPU " + std::to_string(ordinal_) + " to GPU " + std::to_string(owner));
}

void synchronize_all(Device& device) {
  if (device.kind() == Kind::cpu) return device.synchronize(0);
  static_cast<GpuDevice&>(device).synchronize_device();
}

AllocationInfo allocation_info(Device& device, uint64_t address) {
  if (device.kind() == Kind::cpu) return {};
  return static_cast<GpuDevice&>(device).allocation_info(address);
}

std::string export_ipc(Device& device, uint64_t base) {
  if (device.kind() == Kind::cpu) throw ConfigError("CPU memory has no IPC handle");
  return static_cast<GpuDevice&>(device).export_ipc(base);
}

void enable_access(Device& device, uint64_t address) {
  if (device.kind() != Kind::cpu) static_cast<GpuDevice&>(device).enable_access(address);
}

}  // namespace mori::core
