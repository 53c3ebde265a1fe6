// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Memory of the CPU device: ordinary allocations, and the pieces of a symmetric heap. A piece is an
// anonymous file (memfd): it has no name in any file system, so nothing outlives a crash, and its size is
// sealed, so no holder of the descriptor can make the others fault by truncating it.
//
// Addresses are checked against what was handed out here; a wrong free or map is refused.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>

#include "src/core/runtime/device.hpp"

namespace mori::core {

class CpuMemory {
 public:
  /// Sizes of shareable memory are multiples of this: a huge page, where the system uses them.
  static constexpr size_t kGranularity = 2u << 20;

  CpuMemory() = default;
  ~CpuMemory();
  CpuMemory(const CpuMemory&) = delete;
  CpuMemory& operator=(const CpuMemory&) = delete;

  uint64_t allocate(size_t bytes);
  void free(uint64_t address);

  uint64_t reserve(size_t bytes);
  void unreserve(uint64_t address, size_t bytes);
  void map(uint64_t address, const Shareable& memory);
  void unmap(uint64_t address, size_t bytes);

  static Shareable create_shareable(size_t bytes);
  /// Duplicates the descriptor; the caller's stays the caller's.
  static Shareable import_shareable(int fd, size_t bytes);
  static void release(Shareable& memory);

 private:
  struct Allocation {
    size_t bytes;
    bool mapped;  ///< by mmap, else aligned_alloc
  };
  static void free_now(uint64_t address, const Allocation& allocation) noexcept;
  /// Throws unless [address, address + bytes) lies in a reserved range on granularity boundaries.
  void check_window(const char* what, uint64_t address, size_t bytes);

  std::mutex mutex_;
  std::map<uint64_t, Allocation> allocations_;
  std::map<uint64_t, size_t> windows_;  ///< reserved ranges
};

}  // namespace mori::core
