// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// AMD: libamdhip64 of ROCm 6 or 7. What this file knows of versions, all from their public issue trackers:
//  - Mapped memory of releases before 7.14 is cached although uncached memory was asked for, so a peer's
//  writes
//    may stay unseen. There the heap is one chunk of uncached memory, shared by IPC handle.
//  - hipMemImportFromShareableHandle took the address of the descriptor before 7.1, and takes its value
//  since.
//  - An imported descriptor must stay open until the memory is mapped (GpuDevice keeps a duplicate).
#include <dlfcn.h>

#include <cctype>
#include <cstring>
#include <mutex>
#include <string_view>
#include <vector>

#include "src/core/runtime/gpu_driver.hpp"

namespace mori::core {
namespace {

constexpr char kLibrary[] = "libamdhip64";
constexpr int kVersionMapCoherent = 71'400'000;  // major * 10'000'000 + minor * 100'000 + patch
constexpr int kMappedUncached = 0x40000000;      // hipMemAllocationTypeUncached
constexpr unsigned kUncached = 3;                // hipDeviceMallocUncached
constexpr unsigned kFineGrained = 1;             // hipDeviceMallocFinegrained
constexpr unsigned kHostCoherent = 0x40000000;
constexpr unsigned kWaitEqual = 1;  // hipStreamWaitValueEq
constexpr int kMemcpyDefault = 4;
constexpr int kWallClockKhz = 10017;

struct {
  const char* (*error_string)(Status);
  Status (*last_error)();
  Status (*get_device)(int*);
  Status (*set_device)(int);
  Status (*enable_peer)(int, unsigned);
  Status (*copy)(uint64_t, uint64_t, size_t, int);
  Status (*copy_async)(uint64_t, uint64_t, size_t, int, uint64_t);
  Status (*malloc_with_flags)(uint64_t*, size_t, unsigned);
  Status (*properties)(void*, int);  // hipGetDevicePropertiesR0600: the struct's layout since ROCm 6
  Status (*attribute)(int*, int, int);
  Status (*version)(int*);
  Status (*write_value)(uint64_t, uint64_t, uint32_t, unsigned);
  Status (*wait_value)(uint64_t, uint64_t, uint32_t, unsigned, uint32_t mask);
} hip;

std::string error_text(Status status) {
  const char* text = hip.error_string(status);
  return text != nullptr ? text : "unknown error";
}

Status activate(int device, void*, uint64_t* saved, bool* changed) {
  int current = 0;
  if (const Status status = hip.get_device(&current)) return status;
  *saved = uint64_t(current);
  *changed = current != device;
  return *changed ? hip.set_device(device) : 0;
}

// hipDeviceProp_t is some 1500 bytes that differ between releases; of all its fields only gcnArchName is
// wanted, whose text ("gfx942:sramecc+:xnack-") is found wherever it lies behind the device's name.
std::string architecture(int device) {
  constexpr size_t kNameBytes = 256;
  std::vector<char> properties(8192);
  if (hip.properties(properties.data(), device) != 0) return "unknown";
  const std::string_view text(properties.data() + kNameBytes, properties.size() - kNameBytes);
  const size_t begin = text.find("gfx");
  if (begin == std::string_view::npos) return "unknown";
  size_t end = begin + 3;
  while (end < text.size() && std::isalnum(static_cast<unsigned char>(text[end]))) ++end;
  return std::string(text.substr(begin, end - begin));
}

uint64_t clock_hz(int device) {
  int khz = 0;
  hip.attribute(&khz, kWallClockKhz, device);
  return khz > 0 ? uint64_t(khz) * 1000 : 100'000'000;  // the rate of all CDNA parts
}

Status malloc_shared(uint64_t* address, size_t bytes) {
  // A peer's stores do not reach lines that this GPU's L2 holds of ordinary memory.
  if (hip.malloc_with_flags(address, bytes, kUncached) == 0) return 0;
  static_cast<void>(hip.last_error());
  return hip.malloc_with_flags(address, bytes, kFineGrained);
}

void find_mapping(GpuDriver& d, Symbols& symbols) {
  const bool complete =
      symbols.want(d.mapped_granularity, "hipMemGetAllocationGranularity") &&
      symbols.want(d.mapped_create, "hipMemCreate") &&
      symbols.want(d.mapped_export, "hipMemExportToShareableHandle") &&
      symbols.want(d.mapped_import, "hipMemImportFromShareableHandle") &&
      symbols.want(d.mapped_release, "hipMemRelease") &&
      symbols.want(d.mapped_reserve, "hipMemAddressReserve") &&
      symbols.want(d.mapped_unreserve, "hipMemAddressFree") && symbols.want(d.mapped_map, "hipMemMap") &&
      symbols.want(d.mapped_access, "hipMemSetAccess") && symbols.want(d.mapped_unmap, "hipMemUnmap");
  int version = 0;
  hip.version(&version);
  d.mapped_type = kMappedUncached;
  d.mapping_trusted = complete && version >= kVersionMapCoherent;
}

std::string load(GpuDriver& d) {
  void* library = nullptr;
  for (const char* name : {"libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so"}) {
    if ((library = ::dlopen(name, RTLD_NOW | RTLD_LOCAL)) != nullptr) break;
  }
  if (library == nullptr) return std::string("no ROCm: ") + ::dlerror();
  std::string why;
  Symbols symbols(library, kLibrary, &why);
  d.kind = Kind::hip;
  d.library = kLibrary;
  d.attributes = {.processors = 63,
                  .warp_size = 87,
                  .max_threads = 56,
                  .shared_bytes = 74,
                  .shared_optin_bytes = -1,
                  .can_map = 89,
                  .can_export_fd = -1,
                  .can_map_for_rdma = -1,
                  .peer_performance_rank = 0,
                  .peer_access = 1,
                  .peer_atomics = 2};
  d.host_flags = 3 | kHostCoherent;
  d.error_text = error_text;
  d.forget_error = [] { static_cast<void>(hip.last_error()); };
  d.activate = activate;
  d.deactivate = [](uint64_t saved) { static_cast<void>(hip.set_device(int(saved))); };
  d.context = [](int, void** context) {
    *context = nullptr;
    return 0;
  };
  d.architecture = architecture;
  d.clock_hz = clock_hz;
  d.enable_peer = [](int device) { return hip.enable_peer(device, 0); };
  // A code object is loaded whole, and its argument size cannot be asked for: the build has checked it.
  d.prepare = [](void*, uint32_t, size_t* args_bytes) {
    *args_bytes = 0;
    return 0;
  };
  d.malloc_shared = malloc_shared;
  d.memcpy = [](uint64_t to, uint64_t from, size_t bytes) {
    return hip.copy(to, from, bytes, kMemcpyDefault);
  };
  d.memcpy_async = [](uint64_t to, uint64_t from, size_t bytes, uint64_t stream) {
    return hip.copy_async(to, from, bytes, kMemcpyDefault, stream);
  };

  symbols.need(hip.error_string, "hipGetErrorString");
  symbols.need(hip.last_error, "hipGetLastError");
  symbols.need(hip.get_device, "hipGetDevice");
  symbols.need(hip.set_device, "hipSetDevice");
  symbols.need(hip.enable_peer, "hipDeviceEnablePeerAccess");
  symbols.need(hip.copy, "hipMemcpy");
  symbols.need(hip.copy_async, "hipMemcpyAsync");
  symbols.need(hip.malloc_with_flags, "hipExtMallocWithFlags");
  symbols.need(hip.properties, "hipGetDevicePropertiesR0600");
  symbols.need(hip.attribute, "hipDeviceGetAttribute");
  symbols.need(hip.version, "hipRuntimeGetVersion");

  symbols.need(d.device_count, "hipGetDeviceCount");
  symbols.need(d.attribute, "hipDeviceGetAttribute");
  symbols.need(d.name, "hipDeviceGetName");
  symbols.need(d.total_memory, "hipDeviceTotalMem");
  symbols.need(d.pci_bus_id, "hipDeviceGetPCIBusId");
  symbols.need(d.peer_attribute, "hipDeviceGetP2PAttribute");
  symbols.need(d.module_load, "hipModuleLoadData");
  symbols.need(d.module_function, "hipModuleGetFunction");
  symbols.need(d.launch, "hipModuleLaunchKernel");
  symbols.need(d.occupancy, "hipModuleOccupancyMaxActiveBlocksPerMultiprocessor");
  symbols.need(d.stream_create, "hipStreamCreateWithFlags");
  symbols.need(d.stream_destroy, "hipStreamDestroy");
  symbols.need(d.stream_synchronize, "hipStreamSynchronize");
  symbols.need(d.device_synchronize, "hipDeviceSynchronize");
  symbols.need(d.event_create, "hipEventCreateWithFlags");
  symbols.need(d.event_destroy, "hipEventDestroy");
  symbols.need(d.event_record, "hipEventRecord");
  symbols.need(d.event_query, "hipEventQuery");
  symbols.want(d.stream_query, "hipStreamQuery");
  if (symbols.want(hip.write_value, "hipStreamWriteValue32") &&
      symbols.want(hip.wait_value, "hipStreamWaitValue32")) {
    d.stream_write_value = [](uint64_t stream, uint64_t address, uint32_t value) {
      return hip.write_value(stream, address, value, 0);
    };
    d.stream_wait_value = [](uint64_t stream, uint64_t address, uint32_t value) {
      return hip.wait_value(stream, address, value, kWaitEqual, 0xffffffffu);
    };
  }
  symbols.need(d.malloc, "hipMalloc");
  symbols.need(d.free, "hipFree");
  symbols.need(d.memset, "hipMemset");
  symbols.need(d.host_malloc, "hipHostMalloc");
  symbols.need(d.host_address, "hipHostGetDevicePointer");
  symbols.need(d.host_free, "hipHostFree");
  symbols.need(d.host_register, "hipHostRegister");
  symbols.need(d.host_unregister, "hipHostUnregister");
  symbols.need(d.address_range, "hipMemGetAddressRange");
  symbols.need(d.pointer_attribute, "hipPointerGetAttribute");
  symbols.need(d.ipc_get, "hipIpcGetMemHandle");
  symbols.need(d.ipc_open, "hipIpcOpenMemHandle");
  symbols.need(d.ipc_close, "hipIpcCloseMemHandle");
  if (!why.empty()) return why;
  int devices = 0;
  if (const Status status = d.device_count(&devices)) return "no AMD GPU: " + error_text(status);
  if (devices == 0) return "no AMD GPU is visible to this process";
  find_mapping(d, symbols);
  return "";
}

}  // namespace

const GpuDriver* hip_driver(std::string* why) {
  static GpuDriver driver{};
  static std::string failure;
  static std::once_flag once;
  std::call_once(once, [] { failure = load(driver); });
  if (why != nullptr) *why = failure;
  return failure.empty() ? &driver : nullptr;
}

}  // namespace mori::core
