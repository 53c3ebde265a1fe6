// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// mmap, memfd_create and their checks.
#include "src/core/runtime/cpu_memory.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <system_error>

namespace mori::core {
namespace {

constexpr size_t kAlignment = 256;
constexpr size_t kMapFrom = 1u << 20;  // larger allocations come from mmap: zero pages, touched when used
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW;

std::string last_error() { return std::error_code(errno, std::generic_category()).message(); }

std::string hex(uint64_t address) {
  char digits[20];
  snprintf(digits, sizeof digits, "0x%llx", static_cast<unsigned long long>(address));
  return digits;
}

void check_size(const char* what, size_t bytes) {
  if (bytes == 0 || bytes % CpuMemory::kGranularity != 0) {
    throw ConfigError(std::string(what) + ": bytes=" + std::to_string(bytes) +
                      " must be a positive multiple of " + std::to_string(CpuMemory::kGranularity));
  }
}

}  // namespace

CpuMemory::~CpuMemory() {
  for (const auto& [address, allocation] : allocations_) free_now(address, allocation);
  for (const auto& [address, bytes] : windows_) munmap(reinterpret_cast<void*>(address), bytes);
}

uint64_t CpuMemory::allocate(size_t bytes) {
  if (bytes == 0 || bytes > SIZE_MAX / 2) {
    throw ConfigError("allocate: bytes=" + std::to_string(bytes) + " must be positive and below 2^63");
  }
  const Allocation allocation{(bytes + kAlignment - 1) / kAlignment * kAlignment, bytes >= kMapFrom};
  void* memory;
  if (allocation.mapped) {
    memory = mmap(nullptr, allocation.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) memory = nullptr;
  } else {
    memory = std::aligned_alloc(kAlignment, allocation.bytes);
    if (memory != nullptr) memset(memory, 0, allocation.bytes);
  }
  if (memory == nullptr) {
    throw CapacityError("allocate: no " + std::to_string(bytes) + " bytes of memory (" + last_error() + ")");
  }
  const uint64_t address = reinterpret_cast<uint64_t>(memory);
  std::lock_guard<std::mutex> guard(mutex_);
  allocations_.emplace(address, allocation);
  return address;
}

void CpuMemory::free(uint64_t address) {
  Allocation allocation;
  {
    std::lock_guard<std::mutex> guard(mutex_);
    const auto found = allocations_.find(address);
    if (found == allocations_.end()) {
      throw ConfigError("free: address=" + hex(address) + " is not an allocation of this device");
    }
    allocation = found->second;
    allocations_.erase(found);
  }
  free_now(address, allocation);
}

void CpuMemory::free_now(uint64_t address, const Allocation& allocation) noexcept {
  void* const memory = reinterpret_cast<void*>(address);
  if (allocation.mapped) {
    munmap(memory, allocation.bytes);
  } else {
    std::free(memory);
  }
}

uint64_t CpuMemory::reserve(size_t bytes) {
  check_size("reserve", bytes);
  // One granule more than asked, then cut to its boundaries, so that huge pages can be used.
  const size_t slack = bytes + kGranularity;
  void* base = mmap(nullptr, slack, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) {
    throw CapacityError("reserve: no " + std::to_string(bytes) + " bytes of address space (" + last_error() +
                        ")");
  }
  const uint64_t start = reinterpret_cast<uint64_t>(base);
  const uint64_t address = (start + kGranularity - 1) / kGranularity * kGranularity;
  if (address != start) munmap(base, address - start);
  const uint64_t end = address + bytes;
  if (end != start + slack) munmap(reinterpret_cast<void*>(end), start + slack - end);
  std::lock_guard<std::mutex> guard(mutex_);
  windows_.emplace(address, bytes);
  return address;
}

void CpuMemory::unreserve(uint64_t address, size_t bytes) {
  {
    std::lock_guard<std::mutex> guard(mutex_);
    const auto found = windows_.find(address);
    if (found == windows_.end() || found->second != bytes) {
      throw ConfigError("unreserve: address=" + hex(address) + ", bytes=" + std::to_string(bytes) +
                        " is not a reserved range of this device");
    }
    windows_.erase(found);
  }
  munmap(reinterpret_cast<void*>(address), bytes);
}

void CpuMemory::check_window(const char* what, uint64_t address, size_t bytes) {
  check_size(what, bytes);
  std::lock_guard<std::mutex> guard(mutex_);
  auto window = windows_.upper_bound(address);
  const bool inside = window != windows_.begin() && address - (--window)->first <= window->second &&
                      bytes <= window->second - (address - window->first);
  if (!inside || address % kGranularity != 0) {
    throw ConfigError(std::string(what) + ": [" + hex(address) + ", +" + std::to_string(bytes) +
                      ") is not an aligned part of a reserved range of this device");
  }
}

void CpuMemory::map(uint64_t address, const Shareable& memory) {
  check_window("map", address, memory.bytes);
  void* const target = reinterpret_cast<void*>(address);
  if (mmap(target, memory.bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, memory.fd, 0) ==
      MAP_FAILED) {
    throw TransportError("map: cannot map fd=" + std::to_string(memory.fd) + " (" + last_error() + ")");
  }
  madvise(target, memory.bytes, MADV_HUGEPAGE);  // a wish: most systems keep shared memory in small pages
}

void CpuMemory::unmap(uint64_t address, size_t bytes) {
  check_window("unmap", address, bytes);
  if (mmap(reinterpret_cast<void*>(address), bytes, PROT_NONE,
           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED) {
    throw TransportError("unmap: " + last_error());
  }
}

Shareable CpuMemory::create_shareable(size_t bytes) {
  check_size("create_shareable", bytes);
  Shareable memory;
  memory.fd = memfd_create("mori", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (memory.fd < 0) throw TransportError("create_shareable: memfd_create: " + last_error());
  if (ftruncate(memory.fd, off_t(bytes)) != 0 || fcntl(memory.fd, F_ADD_SEALS, kSeals | F_SEAL_SEAL) != 0) {
    const std::string why = last_error();
    close(memory.fd);
    throw CapacityError("create_shareable: bytes=" + std::to_string(bytes) + ": " + why);
  }
  memory.bytes = bytes;
  return memory;
}

Shareable CpuMemory::import_shareable(int fd, size_t bytes) {
  check_size("import_shareable", bytes);
  struct stat status;
  if (fstat(fd, &status) != 0) {
    throw TransportError("import_shareable: fd=" + std::to_string(fd) + ": " + last_error());
  }
  if (status.st_size < 0 || size_t(status.st_size) < bytes) {
    throw TransportError("import_shareable: fd=" + std::to_string(fd) + " has " +
                         std::to_string(status.st_size) + " bytes, expected " + std::to_string(bytes));
  }
  const int seals = fcntl(fd, F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) {
    throw TransportError("import_shareable: fd=" + std::to_string(fd) +
                         " is not memory of a mori CPU device: its size is not sealed");
  }
  Shareable memory;
  memory.fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (memory.fd < 0) throw TransportError("import_shareable: " + last_error());
  memory.bytes = bytes;
  return memory;
}

void CpuMemory::release(Shareable& memory) {
  if (memory.fd >= 0) close(memory.fd);
  memory = Shareable{};
}

}  // namespace mori::core
