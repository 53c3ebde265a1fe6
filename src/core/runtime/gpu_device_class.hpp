// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Device over the driver table, for gpu_device.cpp (opening, properties), gpu_sharing.cpp (memory that peers
// reach) and nobody else. Every public call makes the device current for its own duration only; the launch
// path takes no lock and looks nothing up.
#pragma once
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "src/core/runtime/gpu_device.hpp"
#include "src/core/runtime/gpu_driver.hpp"
#include "src/core/runtime/gpu_modules.hpp"

namespace mori::core {

/// CapacityError if memory ran out, else TransportError: what was tried and what the driver said.
[[noreturn]] void gpu_fail(const GpuDriver& driver, Status status, const std::string& action);

/// Makes a device current for its lifetime.
class Current {
 public:
  Current(const GpuDriver& driver, int ordinal, void* context) : driver_(driver) {
    if (const Status status = driver.activate(ordinal, context, &saved_, &changed_)) {
      gpu_fail(driver, status, "making GPU " + std::to_string(ordinal) + " current");
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
  const Function& function_of(const std::string& path, std::string_view name, size_t args_bytes) override {
    const Current current = activate();
    return modules_->function_of(path, name, args_bytes);
  }
  void launch(const Function& function, const LaunchShape& shape, uint64_t stream,
              const void* args) override {
    const Current current = activate();
    size_t bytes = function.args_bytes;
    void* block = const_cast<void*>(args);
    void* params[] = {block};
    // HIP_LAUNCH_PARAM_BUFFER_POINTER, _SIZE, _END: the form that needs no description of the parameters.
    void* extra[] = {reinterpret_cast<void*>(1), block, reinterpret_cast<void*>(2), &bytes,
                     reinterpret_cast<void*>(3)};
    const bool hip = driver_.kind == Kind::hip;
    const Status status =
        driver_.launch(function.handle, shape.blocks, 1, 1, shape.warps * properties_.warp_size, 1, 1,
                       shape.shared_bytes, stream, hip ? nullptr : params, hip ? extra : nullptr);
    if (status != 0) {
      gpu_fail(driver_, status,
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
  Shareable create_ipc(size_t bytes) override;
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

  const GpuDriver& driver() const { return driver_; }
  Current activate() const { return Current(driver_, ordinal_, context_); }

 private:
  static constexpr unsigned kNonBlocking = 1;  ///< streams that do not wait for the default stream
  static constexpr size_t kIpcGranularity = 2 << 20;

  void check(Status status, const std::string& action) const {
    if (status != 0) gpu_fail(driver_, status, action);
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

}  // namespace mori::core
