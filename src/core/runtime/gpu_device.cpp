// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Device over the driver table. Every public call makes the device current for its own duration only; the
// launch path takes no lock and looks nothing up.
#include "src/core/runtime/gpu_device.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cstring>
#include <map>
#include <mutex>
#include <tuple>

#include "src/core/runtime/gpu_driver.hpp"
#include "src/core/runtime/gpu_modules.hpp"

namespace mori::core {
namespace {

constexpr unsigned kNonBlocking = 1;  // streams that do not wait for the default stream
constexpr unsigned kLazyEnablePeerAccess = 1;
constexpr int kFileDescriptor = 1;
constexpr int kPointerDevice = 9;
constexpr int kPointerIpcCapable = 10;
constexpr int kGranularityRecommended = 1;
constexpr size_t kIpcGranularity = 2 << 20;
// What ends an array of launch arguments: {pointer, block, size, &bytes, end}.
void* const kArgsPointer = reinterpret_cast<void*>(1);
void* const kArgsSize = reinterpret_cast<void*>(2);
void* const kArgsEndHip = reinterpret_cast<void*>(3);

[[noreturn]] void fail(const GpuDriver& driver, Status status, const std::string& action) {
  driver.forget_error();
  const std::string text = action + " failed: " + driver.error_text(status) + " (" + driver.library + " " +
                           std::to_string(status) + ")";
  if (status == kOutOfMemory) throw CapacityError(text);
  throw TransportError(text);
}

/// Makes a device current for its lifetime.
class Current {
 public:
  Current(const GpuDriver& driver, int ordinal, void* context) : driver_(driver) {
    if (const Status status = driver.activate(ordinal, context, &saved_, &changed_)) {
      fail(driver, status, "making GPU " + std::to_string(ordinal) + " current");
    }
  }
  ~Current() {
    if (changed_) driver_.deactivate(saved_);
  }
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;

 private:
  const GpuDriver& driver_;
  uint64_t saved_ = 0;
  bool changed_ = false;
};

class GpuDevice final : public Device {
 public:
  GpuDevice(const GpuDriver& driver, int ordinal, const DeviceOptions& options)
      : driver_(driver), ordinal_(ordinal) {
    check(driver.context(ordinal, &context_), "opening GPU " + std::to_string(ordinal));
    read_properties();
    modules_ = std::make_unique<GpuModules>(driver, options.kernel_dir, properties_.arch, shared_limit_);
    probe_mapping();
  }

  Kind kind() const override { return driver_.kind; }
  int ordinal() const override { return ordinal_; }
  const Properties& properties() const override { return properties_; }

  const Function& function(std::string_view unit, std::string_view name, size_t args_bytes) override {
    const Current current = activate();
    return modules_->function(unit, name, args_bytes);
  }
  void launch(const Function& function, const LaunchShape& shape, uint64_t stream,
              const void* args) override {
    const Current current = activate();
    size_t bytes = function.args_bytes;
    void* block = const_cast<void*>(args);
    void* params[] = {block};
    void* extra[] = {kArgsPointer, block, kArgsSize, &bytes, kArgsEndHip};
    const bool hip = driver_.kind == Kind::hip;
    const Status status =
        driver_.launch(function.handle, shape.blocks, 1, 1, shape.warps * properties_.warp_size, 1, 1,
                       shape.shared_bytes, stream, hip ? nullptr : params, hip ? extra : nullptr);
    if (status != 0) {
      fail(driver_, status,
           "launching '" + function.name + "' with " + std::to_string(shape.blocks) + " blocks of " +
               std::to_string(shape.warps) + " warps and " + std::to_string(shape.shared_bytes) +
               " bytes of shared memory");
    }
  }
  uint32_t max_resident_blocks(const Function& function, uint32_t warps, uint32_t shared_bytes) override {
    const Current current = activate();
    int blocks = 0;
    check(driver_.occupancy(&blocks, function.handle, int(warps * properties_.warp_size), shared_bytes),
          "asking for the occupancy of '" + function.name + "'");
    return uint32_t(blocks) * properties_.processors;
  }

  uint64_t create_stream() override {
    const Current current = activate();
    uint64_t stream = 0;
    check(driver_.stream_create(&stream, kNonBlocking), "creating a stream");
    return stream;
  }
  void destroy_stream(uint64_t stream) override {
    const Current current = activate();
    check(driver_.stream_destroy(stream), "destroying a stream");
  }
  void synchronize(uint64_t stream) override {
    const Current current = activate();
    check(driver_.stream_synchronize(stream), "waiting for a stream");
  }
  void synchronize_device() {
    const Current current = activate();
    check(driver_.device_synchronize(), "waiting for the GPU");
  }

  uint64_t allocate(size_t bytes) override {
    const Current current = activate();
    uint64_t address = 0;
    check(driver_.malloc(&address, bytes == 0 ? 1 : bytes), "allocating " + std::to_string(bytes) + " bytes");
    clear(address, bytes);
    return address;
  }
  void free(uint64_t address) override {
    const Current current = activate();
    check(driver_.free(address), "freeing memory");
  }
  void fill(uint64_t address, uint8_t value, size_t bytes) override {
    if (bytes == 0) return;
    const Current current = activate();
    check(driver_.memset(address, value, bytes), "filling " + std::to_string(bytes) + " bytes");
    check(driver_.stream_synchronize(0), "filling " + std::to_string(bytes) + " bytes");
  }
  void copy(uint64_t to, uint64_t from, size_t bytes) override {
    if (bytes == 0) return;
    const Current current = activate();
    check(driver_.memcpy(to, from, bytes), "copying " + std::to_string(bytes) + " bytes");
    check(driver_.stream_synchronize(0), "copying " + std::to_string(bytes) + " bytes");
  }
  HostMemory allocate_host(size_t bytes) override {
    const Current current = activate();
    HostMemory memory{.host = nullptr, .device = 0, .bytes = bytes};
    const std::string action = "allocating " + std::to_string(bytes) + " bytes of pinned host memory";
    check(driver_.host_malloc(&memory.host, bytes == 0 ? 1 : bytes, driver_.host_flags), action);
    check(driver_.host_address(&memory.device, memory.host, 0), action);
    std::memset(memory.host, 0, bytes);
    return memory;
  }
  void free_host(const HostMemory& memory) override {
    const Current current = activate();
    check(driver_.host_free(memory.host), "freeing pinned host memory");
  }

  bool can_map() const override { return can_map_; }
  size_t share_granularity() const override { return granularity_; }
  uint64_t reserve(size_t bytes) override {
    const Current current = activate();
    uint64_t address = 0;
    check(driver_.mapped_reserve(&address, bytes, granularity_, 0, 0),
          "reserving " + std::to_string(bytes) + " bytes of address space");
    return address;
  }
  void unreserve(uint64_t address, size_t bytes) override {
    const Current current = activate();
    check(driver_.mapped_unreserve(address, bytes), "returning address space");
  }
  Shareable create_shareable(size_t bytes) override;
  Shareable import_shareable(int fd, std::string_view ipc, size_t bytes) override;
  void map(uint64_t address, const Shareable& memory) override;
  void unmap(uint64_t address, size_t bytes) override {
    const Current current = activate();
    check(driver_.mapped_unmap(address, bytes), "unmapping memory");
  }
  void release(Shareable& memory) override;
  uint64_t open_ipc(const Shareable& memory) override;
  void close_ipc(uint64_t address) override;

  AllocationInfo allocation_info(uint64_t address);
  std::string export_ipc(uint64_t base) {
    const Current current = activate();
    IpcHandle handle;
    check(driver_.ipc_get(&handle, base), "making an IPC handle");
    return std::string(handle.bytes, sizeof(handle));
  }
  void enable_access(uint64_t address);

 private:
  Current activate() const { return Current(driver_, ordinal_, context_); }
  void check(Status status, const std::string& action) const {
    if (status != 0) fail(driver_, status, action);
  }
  int attribute(int id) const {
    int value = 1;  // an attribute that the driver does not have is taken as given
    if (id >= 0) check(driver_.attribute(&value, id, ordinal_), "asking for attribute " + std::to_string(id));
    return value;
  }
  void clear(uint64_t address, size_t bytes) {
    if (bytes == 0) return;
    check(driver_.memset(address, 0, bytes), "clearing memory");
    check(driver_.stream_synchronize(0), "clearing memory");
  }
  MappedProperties mapped_properties() const {
    return {.type = driver_.mapped_type, .location = ordinal_, .rdma_capable = uint8_t(map_for_rdma_)};
  }
  void read_properties();
  void probe_mapping();

  const GpuDriver& driver_;
  int ordinal_;
  void* context_ = nullptr;
  Properties properties_;
  uint32_t shared_limit_ = 0;
  bool can_map_ = false;
  bool map_for_rdma_ = false;
  size_t granularity_ = kIpcGranularity;
  std::unique_ptr<GpuModules> modules_;

  struct Opened {
    uint64_t address = 0;
    uint64_t users = 0;
  };
  std::mutex opened_mutex_;
  std::map<std::string, Opened> opened_;  ///< by IPC handle
};

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

Shareable GpuDevice::create_shareable(size_t bytes) {
  const Current current = activate();
  const std::string action = "allocating " + std::to_string(bytes) + " bytes of shareable memory";
  Shareable memory;
  memory.bytes = bytes;
  if (!can_map_) {
    check(driver_.malloc_shared(&memory.native, bytes), action);
    try {
      clear(memory.native, bytes);
      memory.ipc = export_ipc(memory.native);
    } catch (...) {
      driver_.free(memory.native);
      throw;
    }
    return memory;
  }
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
  void* argument = driver_.import_by_pointer ? static_cast<void*>(&memory.fd)
                                             : reinterpret_cast<void*>(static_cast<intptr_t>(memory.fd));
  if (const Status status = driver_.mapped_import(&memory.native, argument, kFileDescriptor)) {
    ::close(memory.fd);
    fail(driver_, status, "importing a peer's memory");
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
    fail(driver_, status, action + " for access by GPU " + std::to_string(ordinal_));
  }
}

void GpuDevice::release(Shareable& memory) {
  const Current current = activate();
  const Shareable old = std::exchange(memory, {});
  if (old.fd >= 0) ::close(old.fd);
  if (old.native == 0) return;
  check(can_map_ ? driver_.mapped_release(old.native) : driver_.free(old.native), "releasing memory");
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
      fail(driver, status, "asking about GPUs " + std::to_string(from) + " and " + std::to_string(to));
    }
    return value;
  };
  return {.access = ask(driver.attributes.peer_access) != 0,
          .native_atomics = ask(driver.attributes.peer_atomics) != 0,
          .performance_rank = ask(driver.attributes.peer_performance_rank)};
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
