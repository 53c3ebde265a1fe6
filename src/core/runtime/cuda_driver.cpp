// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// NVIDIA: libcuda.so.1, which the driver installs. Names end in _v2 where the plain name is still exported
// with the types of CUDA 3. The primary context is used, the one that torch and the CUDA runtime use.
#include <dlfcn.h>

#include <mutex>

#include "src/core/runtime/gpu_driver.hpp"

namespace mori::core {
namespace {

constexpr char kLibrary[] = "libcuda.so.1";
constexpr int kComputeCapabilityMajor = 75;
constexpr int kComputeCapabilityMinor = 76;
constexpr int kMaxDynamicSharedBytes = 8;  // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
constexpr int kStaticSharedBytes = 1;      // CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES
constexpr unsigned kWaitEqual = 1;         // CU_STREAM_WAIT_VALUE_EQ
constexpr uint32_t kSharedWithoutOptIn = 48 << 10;

// Entry points that only the functions below use.
struct {
  Status (*init)(unsigned);
  Status (*error_string)(Status, const char**);
  Status (*retain)(void**, int);
  Status (*current)(void**);
  Status (*push)(void*);
  Status (*pop)(void**);
  Status (*enable_peer)(void*, unsigned);
  Status (*copy)(uint64_t, uint64_t, size_t);
  Status (*load)(void*);                                  // CUDA 12.4
  Status (*param_info)(void*, size_t, size_t*, size_t*);  // CUDA 12.4
  Status (*get_function_attribute)(int*, int, void*);
  Status (*set_function_attribute)(void*, int, int);
  Status (*attribute)(int*, int, int);
  Status (*write_value)(uint64_t, uint64_t, uint32_t, unsigned);
  Status (*wait_value)(uint64_t, uint64_t, uint32_t, unsigned);
} cuda;

std::string error_text(Status status) {
  const char* text = nullptr;
  cuda.error_string(status, &text);
  return text != nullptr ? text : "unknown error";
}

Status activate(int, void* context, uint64_t*, bool* changed) {
  void* current = nullptr;
  if (const Status status = cuda.current(&current)) return status;
  *changed = current != context;
  return *changed ? cuda.push(context) : 0;
}

void deactivate(uint64_t) {
  void* popped = nullptr;
  cuda.pop(&popped);
}

Status enable_peer(int device) {
  void* context = nullptr;
  if (const Status status = cuda.retain(&context, device)) return status;
  return cuda.enable_peer(context, 0);
}

Status prepare(void* function, uint32_t shared_bytes, size_t* args_bytes) {
  *args_bytes = 0;
  // At once: loading at the first launch would wait for a kernel that may be waiting for this launch.
  if (cuda.load != nullptr) {
    if (const Status status = cuda.load(function)) return status;
  }
  if (shared_bytes > kSharedWithoutOptIn) {
    int fixed = 0;
    if (const Status status = cuda.get_function_attribute(&fixed, kStaticSharedBytes, function))
      return status;
    const int dynamic = int(shared_bytes) - fixed;
    if (const Status status = cuda.set_function_attribute(function, kMaxDynamicSharedBytes, dynamic)) {
      return status;
    }
  }
  if (cuda.param_info == nullptr) return 0;
  size_t offset = 0, bytes = 0, rest = 0;
  if (const Status status = cuda.param_info(function, 0, &offset, &bytes)) return status;
  // A second parameter means that this is no kernel of ours: no size will agree with it.
  *args_bytes = cuda.param_info(function, 1, &offset, &rest) == 0 ? size_t(-1) : bytes;
  return 0;
}

std::string architecture(int device) {
  int major = 0, minor = 0;
  cuda.attribute(&major, kComputeCapabilityMajor, device);
  cuda.attribute(&minor, kComputeCapabilityMinor, device);
  return "sm_" + std::to_string(major) + std::to_string(minor);
}

std::string load(GpuDriver& d) {
  void* library = ::dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return std::string("no NVIDIA driver: ") + ::dlerror();
  std::string why;
  Symbols symbols(library, kLibrary, &why);
  d.kind = Kind::cuda;
  d.library = kLibrary;
  d.attributes = {.processors = 16,
                  .warp_size = 10,
                  .max_threads = 1,
                  .shared_bytes = 8,
                  .shared_optin_bytes = 97,
                  .can_map = 102,
                  .can_export_fd = 103,
                  .can_map_for_rdma = 110,
                  .peer_performance_rank = 1,
                  .peer_access = 2,
                  .peer_atomics = 3};
  d.error_text = error_text;
  d.forget_error = [] {};
  d.activate = activate;
  d.deactivate = deactivate;
  d.architecture = architecture;
  d.clock_hz = [](int) { return uint64_t(1'000'000'000); };  // kernels read the nanosecond timer
  d.enable_peer = enable_peer;
  d.prepare = prepare;
  d.memcpy = [](uint64_t to, uint64_t from, size_t bytes) { return cuda.copy(to, from, bytes); };

  symbols.need(cuda.init, "cuInit");
  symbols.need(cuda.error_string, "cuGetErrorString");
  symbols.need(cuda.retain, "cuDevicePrimaryCtxRetain");
  symbols.need(cuda.current, "cuCtxGetCurrent");
  symbols.need(cuda.push, "cuCtxPushCurrent_v2");
  symbols.need(cuda.pop, "cuCtxPopCurrent_v2");
  symbols.need(cuda.enable_peer, "cuCtxEnablePeerAccess");
  symbols.need(cuda.copy, "cuMemcpy");
  symbols.want(cuda.load, "cuFuncLoad");
  symbols.want(cuda.param_info, "cuFuncGetParamInfo");
  symbols.need(cuda.get_function_attribute, "cuFuncGetAttribute");
  symbols.need(cuda.set_function_attribute, "cuFuncSetAttribute");
  symbols.need(cuda.attribute, "cuDeviceGetAttribute");
  d.context = [](int device, void** context) { return cuda.retain(context, device); };

  symbols.need(d.device_count, "cuDeviceGetCount");
  symbols.need(d.attribute, "cuDeviceGetAttribute");
  symbols.need(d.name, "cuDeviceGetName");
  symbols.need(d.total_memory, "cuDeviceTotalMem_v2");
  symbols.need(d.pci_bus_id, "cuDeviceGetPCIBusId");
  symbols.need(d.peer_attribute, "cuDeviceGetP2PAttribute");
  symbols.need(d.module_load, "cuModuleLoadData");
  symbols.need(d.module_function, "cuModuleGetFunction");
  symbols.need(d.launch, "cuLaunchKernel");
  symbols.need(d.occupancy, "cuOccupancyMaxActiveBlocksPerMultiprocessor");
  symbols.need(d.stream_create, "cuStreamCreate");
  symbols.need(d.stream_destroy, "cuStreamDestroy_v2");
  symbols.need(d.stream_synchronize, "cuStreamSynchronize");
  symbols.need(d.device_synchronize, "cuCtxSynchronize");
  symbols.need(d.event_create, "cuEventCreate");
  symbols.need(d.event_destroy, "cuEventDestroy_v2");
  symbols.need(d.event_record, "cuEventRecord");
  symbols.need(d.event_query, "cuEventQuery");
  symbols.need(d.stream_query, "cuStreamQuery");
  if (symbols.want(cuda.write_value, "cuStreamWriteValue32_v2") &&
      symbols.want(cuda.wait_value, "cuStreamWaitValue32_v2")) {
    d.stream_write_value = [](uint64_t stream, uint64_t address, uint32_t value) {
      return cuda.write_value(stream, address, value, 0);
    };
    d.stream_wait_value = [](uint64_t stream, uint64_t address, uint32_t value) {
      return cuda.wait_value(stream, address, value, kWaitEqual);
    };
  }
  symbols.need(d.malloc, "cuMemAlloc_v2");
  symbols.need(d.malloc_shared, "cuMemAlloc_v2");
  symbols.need(d.free, "cuMemFree_v2");
  symbols.need(d.memset, "cuMemsetD8_v2");
  symbols.need(d.memcpy_async, "cuMemcpyAsync");
  symbols.need(d.host_malloc, "cuMemHostAlloc");
  symbols.need(d.host_address, "cuMemHostGetDevicePointer_v2");
  symbols.need(d.host_free, "cuMemFreeHost");
  symbols.need(d.host_register, "cuMemHostRegister_v2");
  symbols.need(d.host_unregister, "cuMemHostUnregister");
  symbols.need(d.address_range, "cuMemGetAddressRange_v2");
  symbols.need(d.pointer_attribute, "cuPointerGetAttribute");
  symbols.need(d.ipc_get, "cuIpcGetMemHandle");
  symbols.need(d.ipc_open, "cuIpcOpenMemHandle_v2");
  symbols.need(d.ipc_close, "cuIpcCloseMemHandle");
  symbols.need(d.mapped_granularity, "cuMemGetAllocationGranularity");
  symbols.need(d.mapped_create, "cuMemCreate");
  symbols.need(d.mapped_export, "cuMemExportToShareableHandle");
  symbols.need(d.mapped_import, "cuMemImportFromShareableHandle");
  symbols.need(d.mapped_release, "cuMemRelease");
  symbols.need(d.mapped_reserve, "cuMemAddressReserve");
  symbols.need(d.mapped_unreserve, "cuMemAddressFree");
  symbols.need(d.mapped_map, "cuMemMap");
  symbols.need(d.mapped_access, "cuMemSetAccess");
  symbols.need(d.mapped_unmap, "cuMemUnmap");
  if (!why.empty()) return why;
  if (const Status status = cuda.init(0)) return "the NVIDIA driver does not start: " + error_text(status);
  int devices = 0;
  if (const Status status = d.device_count(&devices)) return "no NVIDIA GPU: " + error_text(status);
  return devices == 0 ? "no NVIDIA GPU is visible to this process" : "";
}

}  // namespace

const GpuDriver* cuda_driver(std::string* why) {
  static GpuDriver driver{};
  static std::string failure;
  static std::once_flag once;
  std::call_once(once, [] { failure = load(driver); });
  if (why != nullptr) *why = failure;
  return failure.empty() ? &driver : nullptr;
}

}  // namespace mori::core
