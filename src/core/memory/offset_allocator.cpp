// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Free ranges are kept twice, by offset (to join neighbours) and by size (to find the best fit), so both
// operations cost O(log n) in the number of free ranges unless alignment rules many of them out.
#include "src/core/memory/offset_allocator.hpp"

#include <algorithm>
#include <string>

#include "src/core/errors.hpp"

namespace mori::core {
namespace {
constexpr uint64_t kLimitBytes = uint64_t(1) << 63;  // keeps every sum below from wrapping
}

void OffsetAllocator::grow(uint64_t bytes) {
  if (bytes == 0) return;
  if (bytes > kLimitBytes - capacity_bytes_) {
    throw ConfigError("a heap of " + std::to_string(capacity_bytes_) + " bytes cannot grow by " +
                      std::to_string(bytes) + ": offsets end at 2^63");
  }
  if (capacity_bytes_ != 0) seams_.insert(capacity_bytes_);
  insert_free(capacity_bytes_, bytes);
  capacity_bytes_ += bytes;
}

std::optional<uint64_t> OffsetAllocator::allocate(uint64_t bytes, uint64_t alignment) {
  if (alignment == 0 || (alignment & (alignment - 1)) != 0 || alignment > kLimitBytes) {
    throw ConfigError("alignment=" + std::to_string(alignment) + " is not a power of two up to 2^63");
  }
  bytes = std::max<uint64_t>(bytes, 1);
  for (auto fit = free_by_size_.lower_bound({bytes, 0}); fit != free_by_size_.end(); ++fit) {
    const auto [range_bytes, range_offset] = *fit;
    const uint64_t offset = (range_offset + alignment - 1) & ~(alignment - 1);
    const uint64_t skipped = offset - range_offset;
    if (skipped > range_bytes || range_bytes - skipped < bytes) continue;
    erase_free(free_.find(range_offset));
    if (skipped != 0) insert_free(range_offset, skipped);
    if (range_bytes - skipped > bytes) insert_free(offset + bytes, range_bytes - skipped - bytes);
    allocated_.emplace(offset, bytes);
    used_bytes_ += bytes;
    peak_used_bytes_ = std::max(peak_used_bytes_, used_bytes_);
    return offset;
  }
  return std::nullopt;
}

void OffsetAllocator::free(uint64_t offset) {
  const auto found = allocated_.find(offset);
  if (found == allocated_.end()) {
    throw ConfigError("offset=" + std::to_string(offset) + " is not the start of an allocation");
  }
  uint64_t begin = offset;
  uint64_t end = offset + found->second;
  used_bytes_ -= found->second;
  allocated_.erase(found);

  auto next = free_.lower_bound(begin);
  if (next != free_.end() && next->first == end && !seams_.contains(end)) {
    end += next->second;
    const auto joined = next++;
    erase_free(joined);
  }
  if (next != free_.begin() && !seams_.contains(begin)) {
    const auto previous = std::prev(next);
    if (previous->first + previous->second == begin) {
      begin = previous->first;
      erase_free(previous);
    }
  }
  insert_free(begin, end - begin);
}

OffsetAllocator::Statistics OffsetAllocator::statistics() const {
  return {.capacity_bytes = capacity_bytes_,
          .used_bytes = used_bytes_,
          .peak_used_bytes = peak_used_bytes_,
          .largest_free_bytes = free_by_size_.empty() ? 0 : free_by_size_.rbegin()->first,
          .allocations = allocated_.size(),
          .free_ranges = free_.size()};
}

void OffsetAllocator::insert_free(uint64_t offset, uint64_t bytes) {
  free_.emplace(offset, bytes);
  free_by_size_.emplace(bytes, offset);
}

void OffsetAllocator::erase_free(std::map<uint64_t, uint64_t>::iterator range) {
  free_by_size_.erase({range->second, range->first});
  free_.erase(range);
}

}  // namespace mori::core
