// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// A device kind on the host: loads code objects, launches kernels on streams given by their handle,
// owns memory. One implementation for the CPU (cpu_device.cpp) and one for both GPU vendors
// (gpu_device.cpp over a table of driver functions, filled by cuda_driver.cpp or hip_driver.cpp).
//
// Addresses are uint64_t: most of them mean nothing to the host. All calls are thread-safe, may be made
// from any thread and leave the thread's current GPU as they found it. Failures throw core::Error.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "src/core/errors.hpp"

namespace mori::core {

enum class Kind : uint8_t { cpu, cuda, hip };
const char* kind_name(Kind kind);

struct LaunchShape {
  uint32_t blocks = 1;
  uint32_t warps = 1;         ///< per block
  uint32_t shared_bytes = 0;  ///< per block
};

struct Properties {
  std::string name;
  std::string arch;         ///< "sm_90", "gfx942", "x86_64"
  std::string pci_bus_id;   ///< "0000:3b:00.0", empty for the CPU
  uint32_t processors = 0;  ///< SMs, CUs, or threads of the CPU device
  uint32_t warp_size = 0;
  uint32_t max_warps = 0;     ///< per block
  uint32_t shared_bytes = 0;  ///< per block, without opting in to more
  uint64_t memory_bytes = 0;
  uint64_t clock_hz = 0;  ///< rate of the kernels' clock_ticks()
};

/// A loaded kernel. Owned by its Device, valid as long as it.
struct Function {
  std::string name;
  size_t args_bytes = 0;
  void* handle = nullptr;
};

/// Host memory that kernels reach too (pinned and mapped on a GPU). Zero-filled.
struct HostMemory {
  void* host = nullptr;
  uint64_t device = 0;
  size_t bytes = 0;
};

/// Physical memory that another process can map: a chunk of the symmetric heap.
struct Shareable {
  uint64_t native = 0;  ///< driver's allocation handle; 0 for CPU memory
  int fd = -1;          ///< file descriptor to pass to peers, owned by this struct's holder
  std::string ipc;      ///< instead of fd where the driver only has IPC handles
  size_t bytes = 0;
};

class Device {
 public:
  virtual ~Device() = default;
  virtual Kind kind() const = 0;
  virtual int ordinal() const = 0;
  virtual const Properties& properties() const = 0;

  /// `unit` is the code object's name without ending ("ep_dispatch"), `name` the kernel's. Cached.
  /// Refuses a kernel whose argument block has another size than args_bytes.
  virtual const Function& function(std::string_view unit, std::string_view name, size_t args_bytes) = 0;
  /// A kernel of a code object that is a file of its own, made for this device. Cached; a file stays loaded,
  /// so its path stands for one content. args_bytes 0: not compared; Function::args_bytes is then what the
  /// object says, and 0 where it does not (HIP), until somebody says it.
  virtual const Function& function_of(const std::string& path, std::string_view name, size_t args_bytes) = 0;
  /// Queues the kernel on the stream (0: the default stream; on the CPU 0 runs it before returning).
  /// Copies the argument block. Capturable in a CUDA graph.
  virtual void launch(const Function& function, const LaunchShape& shape, uint64_t stream,
                      const void* args) = 0;
  /// Blocks of this shape that are sure to run at the same time on an otherwise idle device.
  virtual uint32_t max_resident_blocks(const Function& function, uint32_t warps, uint32_t shared_bytes) = 0;

  virtual uint64_t create_stream() = 0;
  virtual void destroy_stream(uint64_t stream) = 0;
  /// Waits for a stream; 0 waits for the default stream.
  virtual void synchronize(uint64_t stream) = 0;

  virtual uint64_t allocate(size_t bytes) = 0;  ///< device memory, zero-filled, 256-byte aligned
  virtual void free(uint64_t address) = 0;
  virtual void fill(uint64_t address, uint8_t value, size_t bytes) = 0;  ///< returns when done
  virtual void copy(uint64_t to, uint64_t from, size_t bytes) = 0;       ///< any direction; returns when done
  virtual HostMemory allocate_host(size_t bytes) = 0;
  virtual void free_host(const HostMemory& memory) = 0;

  // Memory of the symmetric heap. can_map() false means that only ipc handles exist: one chunk, no growth.
  virtual bool can_map() const = 0;
  virtual size_t share_granularity() const = 0;
  virtual uint64_t reserve(size_t bytes) = 0;  ///< address space only
  virtual void unreserve(uint64_t address, size_t bytes) = 0;
  virtual Shareable create_shareable(size_t bytes) = 0;  ///< zero-filled once mapped
  virtual Shareable create_ipc(size_t bytes) = 0;  ///< zero-filled, at address `native`, opened by IPC handle
  virtual Shareable import_shareable(int fd, std::string_view ipc, size_t bytes) = 0;
  virtual void map(uint64_t address, const Shareable& memory) = 0;  ///< into a reserved range
  virtual void unmap(uint64_t address, size_t bytes) = 0;
  virtual void release(Shareable& memory) = 0;             ///< closes fd and handle; mappings stay
  virtual uint64_t open_ipc(const Shareable& memory) = 0;  ///< address chosen by the driver
  virtual void close_ipc(uint64_t address) = 0;
};

struct DeviceOptions {
  std::string kernel_dir;    ///< folder of the code objects; empty: kernels/ beside this library
  uint32_t cpu_lanes = 1;    ///< warp size of the CPU device: 1, 32 or 64
  uint32_t cpu_threads = 0;  ///< worker threads of the CPU device; 0: one
};

/// Opens device `ordinal` of a kind. Devices of GPUs are shared within the process; each call for the
/// CPU makes another one, with threads of its own (a rank has one). Throws ConfigError in words that say what
/// is missing.
std::shared_ptr<Device> open_device(Kind kind, int ordinal, const DeviceOptions& options);

/// Number of devices of a kind, and why there is none in `why` (driver missing, no device). Never throws.
int device_count(Kind kind, std::string* why = nullptr);

/// Driver's word on two GPUs of this host: peer access possible, and the driver's performance rank (0 best).
struct PeerAttributes {
  bool access = false;
  bool native_atomics = false;
  int performance_rank = 0;
};
PeerAttributes peer_attributes(Kind kind, int from, int to);

}  // namespace mori::core
