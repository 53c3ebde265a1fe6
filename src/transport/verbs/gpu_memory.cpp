// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/transport/verbs/gpu_memory.hpp"

#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>

#include "src/core/runtime/gpu_driver.hpp"

namespace mori::verbs {
namespace {

using core::GpuDriver;
using core::Kind;

constexpr int kRangeHandleDmabuf = 1;  // CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD

const GpuDriver* driver() {
  for (const Kind kind : {Kind::cuda, Kind::hip}) {
    std::string why;
    const GpuDriver* found = core::gpu_driver(kind, &why);
    int count = 0;
    if (found != nullptr && found->device_count(&count) == 0 && count > 0) return found;
  }
  return nullptr;
}

/// The device is current for this thread while this lives.
class Current {
 public:
  Current(const GpuDriver& d, int device) : d_(d) {
    void* context = nullptr;
    ok_ = d.context(device, &context) == 0 && d.activate(device, context, &saved_, &changed_) == 0;
  }
  ~Current() {
    if (ok_ && changed_) d_.deactivate(saved_);
  }
  bool ok() const { return ok_; }

 private:
  const GpuDriver& d_;
  uint64_t saved_ = 0;
  bool changed_ = false;
  bool ok_ = false;
};

std::optional<Dmabuf> export_cuda(const GpuDriver& d, int device, uint64_t address, uint64_t length,
                                  std::string* why) {
  using Export = int(void* handle, uint64_t address, size_t bytes, int type, unsigned long long flags);
  void* library = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  auto* get = library == nullptr
                  ? nullptr
                  : reinterpret_cast<Export*>(::dlsym(library, "cuMemGetHandleForAddressRange"));
  if (get == nullptr) {
    *why = "this CUDA driver exports no dma-buf (11.7 or later does)";
    return std::nullopt;
  }
  const Current current(d, device);
  uint64_t base = 0;
  size_t bytes = 0;
  if (!current.ok() || d.address_range(&base, &bytes, address) != 0 || address + length > base + bytes) {
    *why = "the address is not within one allocation of GPU " + std::to_string(device);
    return std::nullopt;
  }
  const uint64_t page = uint64_t(::sysconf(_SC_PAGESIZE));
  const uint64_t start = address & ~(page - 1);
  const uint64_t end = (address + length + page - 1) & ~(page - 1);
  int fd = -1;
  const int status = get(&fd, start, end - start, kRangeHandleDmabuf, 0);
  if (status != 0) {
    *why = "dma-buf export: " + d.error_text(status);
    return std::nullopt;
  }
  return Dmabuf{core::Fd(fd), address - start};
}

std::optional<Dmabuf> export_hip(uint64_t address, uint64_t length, std::string* why) {
  using Export = int(const void* address, size_t bytes, int* fd, uint64_t* offset);
  void* library = ::dlopen("libhsa-runtime64.so.1", RTLD_NOW | RTLD_LOCAL);
  auto* get = library == nullptr
                  ? nullptr
                  : reinterpret_cast<Export*>(::dlsym(library, "hsa_amd_portable_export_dmabuf"));
  if (get == nullptr) {
    *why = "this ROCm exports no dma-buf (5.6 or later does)";
    return std::nullopt;
  }
  int fd = -1;
  uint64_t offset = 0;
  const int status = get(reinterpret_cast<const void*>(address), length, &fd, &offset);
  if (status != 0) {
    *why = "dma-buf export: HSA status " + std::to_string(status);
    return std::nullopt;
  }
  return Dmabuf{core::Fd(fd), offset};
}

}  // namespace

std::optional<Dmabuf> export_dmabuf(int device, uint64_t address, uint64_t bytes, std::string* why) {
  const GpuDriver* d = driver();
  if (d == nullptr) {
    *why = "no GPU driver";
    return std::nullopt;
  }
  return d->kind == Kind::cuda ? export_cuda(*d, device, address, bytes, why)
                               : export_hip(address, bytes, why);
}

std::string gpu_bus_id(int device) {
  const GpuDriver* d = driver();
  char text[64] = {};
  if (d == nullptr || d->pci_bus_id(text, sizeof text, device) != 0) return {};
  std::string bus(text);
  std::transform(bus.begin(), bus.end(), bus.begin(), [](unsigned char c) { return char(std::tolower(c)); });
  return bus;
}

}  // namespace mori::verbs
