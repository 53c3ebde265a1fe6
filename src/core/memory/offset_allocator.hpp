// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Hands out ranges of a space of offsets. Pure bookkeeping: it touches no memory and knows no device.
//
// The same sequence of calls gives the same offsets, on every rank: that is what makes the symmetric heap
// symmetric. Best fit (the smallest free range that holds the request, the lowest offset among equals).
// The space grows at its end by chunks. A range never crosses the seam between two chunks, so that one
// driver handle, and one registration with a NIC, covers it. Not thread-safe: the owner has the lock.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <unordered_map>
#include <utility>

namespace mori::core {

class OffsetAllocator {
 public:
  struct Statistics {
    uint64_t capacity_bytes = 0;
    uint64_t used_bytes = 0;
    uint64_t peak_used_bytes = 0;
    uint64_t largest_free_bytes = 0;
    uint64_t allocations = 0;
    uint64_t free_ranges = 0;
  };

  OffsetAllocator() = default;
  explicit OffsetAllocator(uint64_t capacity_bytes) { grow(capacity_bytes); }

  /// Adds a chunk at the end. Throws ConfigError if the space would pass 2^63 bytes.
  void grow(uint64_t bytes);
  /// A range of `bytes` (0 counts as 1) whose offset is a multiple of `alignment`, a power of two.
  /// Nothing if no free range holds it.
  std::optional<uint64_t> allocate(uint64_t bytes, uint64_t alignment);
  /// Gives a range back and joins it with its free neighbours. Throws ConfigError for any other offset.
  void free(uint64_t offset);

  uint64_t capacity_bytes() const { return capacity_bytes_; }
  Statistics statistics() const;

 private:
  void insert_free(uint64_t offset, uint64_t bytes);
  void erase_free(std::map<uint64_t, uint64_t>::iterator range);

  uint64_t capacity_bytes_ = 0;
  uint64_t used_bytes_ = 0;
  uint64_t peak_used_bytes_ = 0;
  std::map<uint64_t, uint64_t> free_;                     ///< offset -> bytes
  std::set<std::pair<uint64_t, uint64_t>> free_by_size_;  ///< (bytes, offset)
  std::unordered_map<uint64_t, uint64_t> allocated_;      ///< offset -> bytes
  std::set<uint64_t> seams_;                              ///< first offset of every chunk but the first
};

}  // namespace mori::core
