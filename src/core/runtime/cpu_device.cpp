// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Device over code objects (cpu_code), threads (cpu_pool, cpu_stream) and memory (cpu_memory).
#include "src/core/runtime/cpu_device.hpp"

#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <shared_mutex>

#include "src/core/runtime/cpu_code.hpp"
#include "src/core/runtime/cpu_memory.hpp"
#include "src/core/runtime/cpu_pool.hpp"
#include "src/core/runtime/cpu_stream.hpp"

namespace mori::core {
namespace {

constexpr uint32_t kMaxBlockLanes = 1024;        // as GPUs have it
constexpr uint32_t kSharedBytes = 64 << 10;      // what a kernel may count on
constexpr uint32_t kMaxSharedBytes = 256 << 10;  // what a launch may ask for
constexpr uint32_t kMaxThreads = 1024;
// Lanes that may wait at the same time: each needs two of the 65530 mappings a process usually has.
constexpr uint32_t kResidentLanes = 16 << 10;

void check_range(const char* what, uint64_t value, uint64_t low, uint64_t high) {
  if (value >= low && value <= high) return;
  throw ConfigError(std::string(what) + "=" + std::to_string(value) + " must lie between " +
                    std::to_string(low) + " and " + std::to_string(high));
}

void check_lanes(uint32_t lanes) {
  if (lanes == 1 || lanes == 32 || lanes == 64) return;
  throw ConfigError("cpu_lanes=" + std::to_string(lanes) + " must be 1 (fast), 32 or 64 (lane-accurate)");
}

class CpuDevice final : public Device {
 public:
  explicit CpuDevice(const DeviceOptions& options)
      : threads_(std::max(1u, options.cpu_threads)),
        code_(CpuCode::path_in(options.kernel_dir, options.cpu_lanes), options.cpu_lanes),
        pool_(threads_) {
    utsname system{};
    uname(&system);
    properties_.name = "CPU";
    properties_.arch = system.machine;
    properties_.processors = threads_;
    properties_.warp_size = options.cpu_lanes;
    properties_.max_warps = kMaxBlockLanes / options.cpu_lanes;
    properties_.shared_bytes = kSharedBytes;
    properties_.memory_bytes = uint64_t(sysconf(_SC_PHYS_PAGES)) * uint64_t(sysconf(_SC_PAGESIZE));
    properties_.clock_hz = 1'000'000'000;
  }

  Kind kind() const override { return Kind::cpu; }
  int ordinal() const override { return 0; }
  const Properties& properties() const override { return properties_; }

  const Function& function(std::string_view unit, std::string_view name, size_t args_bytes) override {
    std::lock_guard<std::mutex> guard(functions_mutex_);
    const auto found = functions_.find(name);
    if (found != functions_.end() && found->second->args_bytes == args_bytes) return *found->second;
    return remember(functions_, code_.find(unit, name, args_bytes));
  }

  const Function& function_of(const std::string& path, std::string_view name, size_t args_bytes) override {
    std::lock_guard<std::mutex> guard(functions_mutex_);
    auto object = objects_.find(path);
    if (object == objects_.end()) {
      object = objects_.try_emplace(path, CpuCode(path, properties_.warp_size)).first;
    }
    Functions& functions = object->second.functions;
    const auto found = functions.find(name);
    if (found != functions.end() && (args_bytes == 0 || found->second->args_bytes == args_bytes)) {
      return *found->second;
    }
    return remember(functions, object->second.code.find("", name, args_bytes));
  }

  void launch(const Function& function, const LaunchShape& shape, uint64_t stream,
              const void* args) override {
    const CpuKernel& kernel = *static_cast<const CpuKernel*>(function.handle);
    check_range("blocks", shape.blocks, 1, INT32_MAX);
    if (shape.warps == 0 || shape.warps > std::min(kernel.max_warps, properties_.max_warps)) {
      throw ConfigError("kernel " + kernel.name + ": warps=" + std::to_string(shape.warps) + " of " +
                        std::to_string(kernel.warp_size) + " lanes must lie between 1 and " +
                        std::to_string(std::min(kernel.max_warps, properties_.max_warps)));
    }
    check_range("shared_bytes", shape.shared_bytes, 0, kMaxSharedBytes);
    if (stream == 0) {
      run_cpu_kernel(pool_, kernel, shape, args);
    } else {
      find_stream(stream)->queue(kernel, shape, args);
    }
  }

  uint32_t max_resident_blocks(const Function&, uint32_t warps, uint32_t shared_bytes) override {
    if (warps == 0 || warps > properties_.max_warps || shared_bytes > kMaxSharedBytes) return 0;
    return kResidentLanes / (warps * properties_.warp_size);
  }

  uint64_t create_stream() override {
    auto stream = std::make_shared<CpuStream>(threads_);
    std::lock_guard<std::shared_mutex> guard(streams_mutex_);
    streams_.emplace(++last_stream_, std::move(stream));
    return last_stream_;
  }

  void destroy_stream(uint64_t stream) override {
    const std::shared_ptr<CpuStream> taken = find_stream(stream);
    {
      std::lock_guard<std::shared_mutex> guard(streams_mutex_);
      streams_.erase(stream);
    }
    taken->synchronize();  // so that a failure nobody asked for is still seen
  }

  void synchronize(uint64_t stream) override {
    if (stream != 0) find_stream(stream)->synchronize();  // launches on 0 have ended when they return
  }

  uint64_t allocate(size_t bytes) override { return memory_.allocate(bytes); }
  void free(uint64_t address) override { memory_.free(address); }
  void fill(uint64_t address, uint8_t value, size_t bytes) override {
    if (bytes != 0) memset(reinterpret_cast<void*>(address), value, bytes);
  }
  void copy(uint64_t to, uint64_t from, size_t bytes) override {
    if (bytes != 0) memmove(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes);
  }
  HostMemory allocate_host(size_t bytes) override {
    const uint64_t address = memory_.allocate(bytes);
    return {reinterpret_cast<void*>(address), address, bytes};
  }
  void free_host(const HostMemory& memory) override { memory_.free(memory.device); }

  bool can_map() const override { return true; }
  size_t share_granularity() const override { return CpuMemory::kGranularity; }
  uint64_t reserve(size_t bytes) override { return memory_.reserve(bytes); }
  void unreserve(uint64_t address, size_t bytes) override { memory_.unreserve(address, bytes); }
  Shareable create_shareable(size_t bytes) override { return CpuMemory::create_shareable(bytes); }
  Shareable create_ipc(size_t) override { throw ConfigError("CPU memory has no IPC handles: it is mapped"); }
  Shareable import_shareable(int fd, std::string_view ipc, size_t bytes) override {
    if (!ipc.empty()) throw ConfigError("import_shareable: memory of the CPU has no ipc handles");
    return CpuMemory::import_shareable(fd, bytes);
  }
  void map(uint64_t address, const Shareable& memory) override { memory_.map(address, memory); }
  void unmap(uint64_t address, size_t bytes) override { memory_.unmap(address, bytes); }
  void release(Shareable& memory) override { CpuMemory::release(memory); }
  uint64_t open_ipc(const Shareable&) override {
    throw ConfigError("open_ipc: memory of the CPU has no ipc handles");
  }
  void close_ipc(uint64_t) override { throw ConfigError("close_ipc: memory of the CPU has no ipc handles"); }

 private:
  using Functions = std::map<std::string, std::unique_ptr<Function>, std::less<>>;
  struct Object {
    explicit Object(CpuCode loaded) : code(std::move(loaded)) {}
    CpuCode code;
    Functions functions;
  };

  const Function& remember(Functions& functions, CpuKernel found) {
    CpuKernel& kernel = kernels_.emplace_back(std::move(found));
    auto function = std::make_unique<Function>(Function{kernel.name, kernel.args_bytes, &kernel});
    return *functions.emplace(kernel.name, std::move(function)).first->second;
  }
  std::shared_ptr<CpuStream> find_stream(uint64_t stream) {
    std::shared_lock<std::shared_mutex> guard(streams_mutex_);
    const auto found = streams_.find(stream);
    if (found != streams_.end()) return found->second;
    throw ConfigError("stream=" + std::to_string(stream) + " is not a stream of this device");
  }

  const uint32_t threads_;
  Properties properties_;
  CpuCode code_;
  CpuMemory memory_;
  std::mutex functions_mutex_;
  std::deque<CpuKernel> kernels_;  // addresses stay
  Functions functions_;
  std::map<std::string, Object> objects_;  // by path
  CpuPool pool_;
  std::shared_mutex streams_mutex_;
  std::map<uint64_t, std::shared_ptr<CpuStream>> streams_;
  uint64_t last_stream_ = 0;
};

}  // namespace

std::shared_ptr<Device> open_cpu(int ordinal, const DeviceOptions& options) {
  if (ordinal != 0) throw ConfigError("ordinal=" + std::to_string(ordinal) + ": the CPU is device 0");
  check_lanes(options.cpu_lanes);
  check_range("cpu_threads", options.cpu_threads, 0, kMaxThreads);
  return std::make_shared<CpuDevice>(options);
}

}  // namespace mori::core
