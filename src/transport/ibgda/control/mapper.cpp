// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/transport/ibgda/control/mapper.hpp"

#include <dlfcn.h>
#include <unistd.h>

#include <map>
#include <vector>

#include "src/core/errors.hpp"
#include "src/core/runtime/copy_queue.hpp"
#include "src/core/runtime/gpu_device_class.hpp"

namespace mori::ibgda {
namespace {

using core::GpuDevice;

constexpr unsigned kRegisters = 7;  // CU_MEMHOSTREGISTER_*: PORTABLE, DEVICEMAP, IOMEMORY
constexpr const char* kHsa = "libhsa-runtime64.so.1";

template <class F>
F* hsa_call(const char* name) {
  void* library = ::dlopen(kHsa, RTLD_NOW | RTLD_LOCAL);
  return library == nullptr ? nullptr : reinterpret_cast<F*>(::dlsym(library, name));
}

/// All GPUs get the address.
uint64_t lock_for_hsa(void* page, uint64_t bytes) {
  auto* lock = hsa_call<int(void*, size_t, void* agents, int count, void** device)>("hsa_amd_memory_lock");
  if (lock == nullptr) throw core::TransportError(std::string("no hsa_amd_memory_lock in ") + kHsa);
  void* device = nullptr;
  if (const int status = lock(page, bytes, nullptr, 0, &device); status != 0) {
    throw core::TransportError("the doorbell page cannot be mapped into the GPU: HSA status " +
                               std::to_string(status));
  }
  return reinterpret_cast<uint64_t>(device);
}

class GpuMapper final : public Mapper {
 public:
  explicit GpuMapper(std::shared_ptr<core::Device> device)
      : device_(std::move(device)), gpu_(dynamic_cast<GpuDevice&>(*device_)) {}

  ~GpuMapper() override {
    for (const uint64_t address : pinned_) core::unpin_host(*device_, address);
    try {
      const core::Current current = gpu_.activate();
      for (const auto& [page, mapped] : pages_) unmap(reinterpret_cast<void*>(page));
      gpu_.driver().forget_error();
    } catch (...) {  // a driver that is gone has unmapped everything
    }
  }

  int gpu() const override { return gpu_.ordinal(); }

  uint64_t memory(uint64_t address, uint64_t bytes) override {
    if (address == 0) return 0;
    const core::PinnedHost pinned = core::pin_host(*device_, address, bytes);
    if (pinned.mine) pinned_.push_back(address);
    return pinned.device_address;
  }

  uint64_t registers(uint64_t address) override {
    const uint64_t bytes = uint64_t(::sysconf(_SC_PAGESIZE)), page = address / bytes * bytes;
    if (!pages_.contains(page)) pages_[page] = map(reinterpret_cast<void*>(page), bytes);
    return pages_[page] + (address - page);
  }

 private:
  uint64_t map(void* page, uint64_t bytes) const {
    const core::Current current = gpu_.activate();
    if (gpu_.kind() == core::Kind::hip) return lock_for_hsa(page, bytes);
    const core::GpuDriver& driver = gpu_.driver();
    if (const core::Status status = driver.host_register(page, bytes, kRegisters); status != 0) {
      driver.forget_error();
      throw core::TransportError(
          "the doorbell page cannot be mapped into the GPU: " + driver.error_text(status) +
          " (is the NVIDIA driver loaded with "
          "NVreg_RegistryDwords=\"PeerMappingOverride=1;\"?)");
    }
    uint64_t device = 0;
    if (const core::Status status = driver.host_address(&device, page, 0); status != 0) {
      driver.host_unregister(page);
      throw core::TransportError("the doorbell page has no address on the GPU: " + driver.error_text(status));
    }
    return device;
  }
  void unmap(void* page) const {
    if (gpu_.kind() != core::Kind::hip) {
      gpu_.driver().host_unregister(page);
    } else if (auto* unlock = hsa_call<int(void*)>("hsa_amd_memory_unlock")) {
      unlock(page);
    }
  }

  std::shared_ptr<core::Device> device_;
  GpuDevice& gpu_;
  std::vector<uint64_t> pinned_;
  std::map<uint64_t, uint64_t> pages_;  ///< of the host: the device's address
};

}  // namespace

std::unique_ptr<Mapper> make_mapper(std::shared_ptr<core::Device> device) {
  if (device->kind() == core::Kind::cpu) return std::make_unique<Mapper>();
  return std::make_unique<GpuMapper>(std::move(device));
}

}  // namespace mori::ibgda
