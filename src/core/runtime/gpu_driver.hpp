// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The two GPU drivers behind one table. CUDA's driver interface and HIP's runtime have the same calls with
// the same shapes; where they differ (which device is current, error texts, a few arguments) the table holds
// a small function of ours, and else the driver's own. gpu_device.cpp is written over the table, once.
//
// No header of either is used and neither is linked: cuda_driver.cpp and hip_driver.cpp find the symbols at
// run time. Types are those of the public interfaces, reduced to what the calling convention sees: a device
// pointer, a handle and a pointer to an opaque struct are one 64-bit integer, an enum is an int, a status is
// an int and 0 means success. Attribute numbers and layouts come from the public interface documentation
// (CUDA Driver API 12 and 13; HIP runtime API 6 and 7) and are fixed by binary compatibility.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "src/core/runtime/device.hpp"

namespace mori::core {

using Status = int;
inline constexpr Status kOutOfMemory = 2;           // in both interfaces
inline constexpr Status kNotReady = 600;            // in both interfaces
inline constexpr Status kPeerAlreadyEnabled = 704;  // in both interfaces
inline constexpr Status kAlreadyRegistered = 712;   // in both interfaces

/// CUmemAllocationProp, hipMemAllocationProp.
struct MappedProperties {
  int type = 0;           ///< GpuDriver::mapped_type
  int handle_types = 1;   ///< POSIX file descriptor
  int location_type = 1;  ///< a device
  int location = 0;       ///< its ordinal
  void* win32 = nullptr;
  uint8_t compression = 0;
  uint8_t rdma_capable = 0;
  uint16_t usage = 0;
  uint8_t reserved[4] = {};
};
static_assert(sizeof(MappedProperties) == 32, "layout");

/// CUmemAccessDesc, hipMemAccessDesc.
struct MappedAccess {
  int location_type = 1;
  int location = 0;
  int flags = 3;  ///< read and write
};
static_assert(sizeof(MappedAccess) == 12, "layout");

/// CUipcMemHandle, hipIpcMemHandle_t: travels by value.
struct IpcHandle {
  char bytes[64] = {};
};

/// Numbers of the attributes that are asked for; -1 where the driver has no such attribute (read as 1).
struct GpuAttributes {
  int processors, warp_size, max_threads, shared_bytes, shared_optin_bytes;
  int can_map, can_export_fd, can_map_for_rdma;
  int peer_performance_rank, peer_access, peer_atomics;
};

struct GpuDriver {
  Kind kind{};
  const char* library = "";  ///< for messages
  GpuAttributes attributes{};
  int mapped_type = 1;          ///< kind of memory that mapped_create makes
  bool mapping_trusted = true;  ///< false: this version maps memory that is not coherent between GPUs
  unsigned host_flags = 3;      ///< portable and mapped

  std::string (*error_text)(Status);
  void (*forget_error)();  ///< HIP keeps a thread's last error, which others would take for theirs
  Status (*device_count)(int* count);
  /// Makes the device current for this thread; `saved` is what deactivate() needs, unless it was current.
  Status (*activate)(int device, void* context, uint64_t* saved, bool* changed);
  void (*deactivate)(uint64_t saved);
  Status (*context)(int device, void** context);  ///< of the device, retained for the process's life
  std::string (*architecture)(int device);        ///< "sm_90", "gfx942"
  uint64_t (*clock_hz)(int device);
  Status (*attribute)(int* value, int attribute, int device);
  Status (*name)(char* text, int bytes, int device);
  Status (*total_memory)(size_t* bytes, int device);
  Status (*pci_bus_id)(char* text, int bytes, int device);
  Status (*peer_attribute)(int* value, int attribute, int from, int to);
  Status (*enable_peer)(int device);  ///< lets the current device reach plain allocations of `device`

  Status (*module_load)(void** module, const void* image);
  Status (*module_function)(void** function, void* module, const char* name);
  /// Loads the kernel eagerly, allows it `shared_bytes` of dynamic shared memory, and says how many bytes of
  /// arguments it takes (0: cannot be asked).
  Status (*prepare)(void* function, uint32_t shared_bytes, size_t* args_bytes);
  Status (*launch)(void* function, unsigned blocks_x, unsigned blocks_y, unsigned blocks_z,
                   unsigned threads_x, unsigned threads_y, unsigned threads_z, unsigned shared_bytes,
                   uint64_t stream, void** params, void** extra);
  Status (*occupancy)(int* blocks, void* function, int threads, size_t shared_bytes);

  Status (*stream_create)(uint64_t* stream, unsigned flags);
  Status (*stream_destroy)(uint64_t stream);
  Status (*stream_synchronize)(uint64_t stream);
  Status (*device_synchronize)();
  Status (*event_create)(uint64_t* event, unsigned flags);
  Status (*event_destroy)(uint64_t event);
  Status (*event_record)(uint64_t event, uint64_t stream);
  Status (*event_query)(uint64_t event);  ///< kNotReady while work in front of it runs
  /// kNotReady while work runs. Null: kernels cannot mark their own end (CopyQueue::marked_by_kernel()).
  Status (*stream_query)(uint64_t stream);

  // Words of 4 bytes in stream order. Null as a pair where the library has none.
  Status (*stream_write_value)(uint64_t stream, uint64_t address,
                               uint32_t value);  ///< this device's or the host's
  Status (*stream_wait_value)(uint64_t stream, uint64_t address, uint32_t value);  ///< until it is equal

  Status (*malloc)(uint64_t* address, size_t bytes);
  Status (*malloc_shared)(uint64_t* address, size_t bytes);  ///< coherent for peers that write into it
  Status (*free)(uint64_t address);
  Status (*memset)(uint64_t address, int value, size_t bytes);
  Status (*memcpy)(uint64_t to, uint64_t from, size_t bytes);
  Status (*memcpy_async)(uint64_t to, uint64_t from, size_t bytes, uint64_t stream);
  Status (*host_malloc)(void** host, size_t bytes, unsigned flags);
  Status (*host_address)(uint64_t* device, void* host, unsigned flags);
  Status (*host_free)(void* host);
  Status (*host_register)(void* host, size_t bytes, unsigned flags);
  Status (*host_unregister)(void* host);
  Status (*address_range)(uint64_t* base, size_t* bytes, uint64_t address);
  Status (*pointer_attribute)(void* value, int attribute, uint64_t address);

  Status (*ipc_get)(IpcHandle* handle, uint64_t address);
  Status (*ipc_open)(uint64_t* address, IpcHandle handle, unsigned flags);
  Status (*ipc_close)(uint64_t address);

  // Null as a group where the library has no mapping of memory.
  Status (*mapped_granularity)(size_t* bytes, const MappedProperties* properties, int option);
  Status (*mapped_create)(uint64_t* handle, size_t bytes, const MappedProperties* properties,
                          unsigned long long flags);
  Status (*mapped_export)(void* fd, uint64_t handle, int type, unsigned long long flags);
  Status (*mapped_import)(uint64_t* handle, void* fd, int type);
  Status (*mapped_release)(uint64_t handle);
  Status (*mapped_reserve)(uint64_t* address, size_t bytes, size_t alignment, uint64_t hint,
                           unsigned long long flags);
  Status (*mapped_unreserve)(uint64_t address, size_t bytes);
  Status (*mapped_map)(uint64_t address, size_t bytes, size_t offset, uint64_t handle,
                       unsigned long long flags);
  Status (*mapped_access)(uint64_t address, size_t bytes, const MappedAccess* access, size_t count);
  Status (*mapped_unmap)(uint64_t address, size_t bytes);
};

/// The driver of this machine, initialised, or null with the reason in `why`. Never throws.
const GpuDriver* cuda_driver(std::string* why);
const GpuDriver* hip_driver(std::string* why);
const GpuDriver* gpu_driver(Kind kind, std::string* why);

/// dlsym with a typed target: false, and `why` set, if a symbol that is needed is missing.
class Symbols {
 public:
  Symbols(void* library, const char* name, std::string* why) : library_(library), name_(name), why_(why) {}
  template <class F>
  void need(F*& target, const char* symbol) {
    target = reinterpret_cast<F*>(find(symbol));
    if (target == nullptr && why_->empty()) *why_ = std::string(name_) + " is too old: it lacks " + symbol;
  }
  template <class F>
  bool want(F*& target, const char* symbol) {
    target = reinterpret_cast<F*>(find(symbol));
    return target != nullptr;
  }

 private:
  void* find(const char* symbol) const;
  void* library_;
  const char* name_;
  std::string* why_;
};

}  // namespace mori::core
