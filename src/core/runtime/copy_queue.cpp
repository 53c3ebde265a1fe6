// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/core/runtime/copy_queue.hpp"

#include <unistd.h>

#include <string>
#include <utility>

#include "src/core/runtime/gpu_device_class.hpp"

namespace mori::core {
namespace {

constexpr unsigned kWithoutTiming = 2;      // CU_EVENT_DISABLE_TIMING, hipEventDisableTiming
constexpr unsigned kPortableAndMapped = 3;  // CU_MEMHOSTREGISTER_*, hipHostRegister*

GpuDevice* gpu(Device& device) {
  return device.kind() == Kind::cpu ? nullptr : static_cast<GpuDevice*>(&device);
}

void check(const GpuDevice& device, Status status, const char* action) {
  if (status != 0) gpu_fail(device.driver(), status, action);
}

constexpr std::chrono::milliseconds kAskDriverAfter{1};

uint64_t page_of(uint64_t address) { return address & ~(uint64_t(::sysconf(_SC_PAGESIZE)) - 1); }

}  // namespace

CopyQueue::CopyQueue(std::shared_ptr<Device> device) : device_(std::move(device)) {
  GpuDevice* const on = gpu(*device_);
  if (on == nullptr) return;
  stream_ = device_->create_stream();
  try {
    if (on->driver().stream_query != nullptr) word_ = device_->allocate_host(64);
    const Current current = on->activate();
    check(*on, on->driver().event_create(&event_, kWithoutTiming), "creating an event");
  } catch (...) {
    if (word_.host != nullptr) device_->free_host(word_);
    device_->destroy_stream(stream_);
    throw;
  }
}

CopyQueue::~CopyQueue() {
  GpuDevice* const on = gpu(*device_);
  if (on == nullptr) return;
  try {
    if (word_.host != nullptr) device_->free_host(word_);
    const Current current = on->activate();
    if (event_ != 0) on->driver().event_destroy(event_);
    on->driver().stream_destroy(stream_);
  } catch (...) {  // a device that failed cannot be tidied up; the process's end does it
  }
}

void CopyQueue::copy(uint64_t to, uint64_t from, size_t bytes) {
  GpuDevice* const on = gpu(*device_);
  if (on == nullptr) return device_->copy(to, from, bytes);
  const Current current = on->activate();
  check(*on, on->driver().memcpy_async(to, from, bytes, stream_), "queueing a copy");
}

void CopyQueue::launch(const Function& function, const LaunchShape& shape, const void* args) {
  device_->launch(function, shape, stream_, args);
}

void CopyQueue::mark() {
  GpuDevice* const on = gpu(*device_);
  if (on == nullptr) return;
  const Current current = on->activate();
  check(*on, on->driver().event_record(event_, stream_), "recording an event");
  by_kernel_ = false;
}

std::optional<CopyQueue::Word> CopyQueue::marked_by_kernel() {
  if (word_.host == nullptr) return std::nullopt;
  by_kernel_ = true;
  marked_ = std::chrono::steady_clock::now();
  return Word{word_.device, ++marks_};
}

bool CopyQueue::reached() {
  GpuDevice* const on = gpu(*device_);
  if (on == nullptr) return true;
  if (by_kernel_) {
    if (__atomic_load_n(static_cast<uint64_t*>(word_.host), __ATOMIC_ACQUIRE) == marks_) return true;
    // A kernel that failed writes no word: now and then the driver is asked.
    if (std::chrono::steady_clock::now() - marked_ < kAskDriverAfter) return false;
  }
  const Current current = on->activate();
  const GpuDriver& driver = on->driver();
  const Status status = by_kernel_ ? driver.stream_query(stream_) : driver.event_query(event_);
  if (status == kNotReady) {
    driver.forget_error();
    marked_ = std::chrono::steady_clock::now();
    return false;
  }
  check(*on, status, "copying on the GPU");
  return true;
}

PinnedHost pin_host(Device& device, uint64_t address, size_t bytes) {
  GpuDevice* const on = gpu(device);
  if (on == nullptr) return {.device_address = address, .mine = false};
  const std::string action = "pinning " + std::to_string(bytes) + " bytes of host memory";
  const GpuDriver& driver = on->driver();
  const Current current = on->activate();
  const uint64_t first = page_of(address), last = page_of(address + bytes - 1);
  const uint64_t page = uint64_t(::sysconf(_SC_PAGESIZE));
  void* const start = reinterpret_cast<void*>(first);
  const Status status = driver.host_register(start, last + page - first, kPortableAndMapped);
  if (status != 0 && status != kAlreadyRegistered) gpu_fail(driver, status, action);
  if (status != 0) driver.forget_error();
  const bool mine = status == 0;
  // Somebody may have pinned a part only: then the far end has no address, or one that does not fit.
  uint64_t begin = 0, end = 0;
  Status found = driver.host_address(&begin, reinterpret_cast<void*>(address), 0);
  if (found == 0) found = driver.host_address(&end, reinterpret_cast<void*>(address + bytes - 1), 0);
  if (found != 0 || end - begin != bytes - 1) {
    if (mine) driver.host_unregister(start);
    if (found != 0) gpu_fail(driver, found, action);
    throw TransportError(action + " failed: a part of it is pinned by somebody else");
  }
  return {.device_address = begin, .mine = mine};
}

void unpin_host(Device& device, uint64_t address) noexcept {
  GpuDevice* const on = gpu(device);
  if (on == nullptr) return;
  try {
    const Current current = on->activate();
    on->driver().host_unregister(reinterpret_cast<void*>(page_of(address)));
    on->driver().forget_error();
  } catch (...) {  // as above
  }
}

}  // namespace mori::core
