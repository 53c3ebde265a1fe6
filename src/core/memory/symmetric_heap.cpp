// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The heap keeps no descriptor and no driver handle after a chunk is mapped: mappings alone hold the memory,
// and the kernel drops them with the process, however it dies.
#include "src/core/memory/symmetric_heap.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "src/core/runtime/gpu_device.hpp"

namespace mori::core {
namespace {

constexpr uint64_t kIpcAlignment = 256;  // of the addresses that a driver gives to an opened handle

std::string number(uint64_t value) { return std::to_string(value); }

}  // namespace

Allocation::~Allocation() { heap_->released(offset_); }

std::shared_ptr<SymmetricHeap> SymmetricHeap::create(std::shared_ptr<Device> device, uint32_t rank,
                                                     uint32_t world_size, const HeapOptions& options) {
  return std::shared_ptr<SymmetricHeap>(new SymmetricHeap(std::move(device), rank, world_size, options));
}

SymmetricHeap::SymmetricHeap(std::shared_ptr<Device> device, uint32_t rank, uint32_t world_size,
                             const HeapOptions& options)
    : device_(std::move(device)), rank_(rank), world_size_(world_size), options_(options) {
  if (rank >= world_size) {
    throw ConfigError("rank=" + number(rank) + " is not below world_size=" + number(world_size));
  }
  if (options_.map && !device_->can_map()) {
    throw ConfigError("this device cannot map another process's memory at a chosen address");
  }
  if (!options_.apart.empty() && (options_.apart.size() != world_size || options_.apart[rank])) {
    throw ConfigError("apart has " + number(options_.apart.size()) + " entries for world_size=" +
                      number(world_size) + ", or says that rank " + number(rank) + " is apart from itself");
  }
  granularity_ = device_->share_granularity();
  const uint64_t rounded = (options_.reserve_bytes + granularity_ - 1) / granularity_ * granularity_;
  if (options_.reserve_bytes == 0 || rounded < options_.reserve_bytes) {
    throw ConfigError("reserve_bytes=" + number(options_.reserve_bytes) + " is out of range");
  }
  options_.reserve_bytes = rounded;
  windows_.resize(world_size);
  ipc_windows_.resize(world_size);
  try {
    bases_address_ = device_->allocate(world_size * sizeof(uint64_t));
    if (options_.map) {
      for (uint32_t peer = 0; peer < world_size; ++peer) {
        if (!is_apart(peer)) windows_[peer] = device_->reserve(rounded);
      }
    }
  } catch (...) {
    for (const uint64_t window : windows_) {
      if (window != 0) device_->unreserve(window, rounded);
    }
    if (bases_address_ != 0) device_->free(bases_address_);
    throw;
  }
}

SymmetricHeap::~SymmetricHeap() {
  abandon();
  const auto quietly = [](auto&& step) {
    try {
      step();
    } catch (...) {  // a device that failed cannot be tidied up; the process's end does it
    }
  };
  // First, because a GPU driver lets running kernels finish before it frees.
  quietly([&] { device_->free(bases_address_); });
  for (uint32_t peer = 0; peer < world_size_; ++peer) {
    if (is_apart(peer)) continue;
    if (options_.map) {
      uint64_t offset = 0;
      for (const uint64_t bytes : chunk_bytes_) {
        detach(peer, offset, bytes);
        offset += bytes;
      }
      quietly([&] { device_->unreserve(windows_[peer], options_.reserve_bytes); });
    } else {
      detach(peer, 0, 0);
    }
  }
  if (ipc_chunk_.bytes != 0) quietly([&] { device_->release(ipc_chunk_); });
}

SymmetricHeap::Export SymmetricHeap::grow(uint64_t bytes) {
  if (growth_) throw ConfigError("the heap is growing already: commit() or abandon() first");
  if (bytes == 0 || bytes % granularity_ != 0) {
    throw ConfigError("bytes=" + number(bytes) + " is not a positive multiple of the granularity, " +
                      number(granularity_));
  }
  const uint64_t offset = capacity_bytes();
  if (!growable()) {
    throw CapacityError("the heap of " + number(offset) +
                        " bytes cannot grow: this driver shares memory by IPC handles only. Make it " +
                        number(offset + bytes) + " bytes at the start");
  }
  if (bytes > options_.reserve_bytes - offset) {
    throw CapacityError("the heap of " + number(offset) + " bytes cannot grow by " + number(bytes) +
                        ": its window is " + number(options_.reserve_bytes) + " bytes");
  }
  Growth growth{.mine = options_.map ? device_->create_shareable(bytes) : device_->create_ipc(bytes),
                .bytes = bytes,
                .attached = {}};
  growth.attached.resize(world_size_);
  try {
    if (options_.map) {
      device_->map(windows_[rank_] + offset, growth.mine);
    } else {
      windows_[rank_] = growth.mine.native;
    }
  } catch (...) {
    device_->release(growth.mine);
    throw;
  }
  growth.attached[rank_] = true;
  growth_ = std::move(growth);
  Export result{.bytes = bytes, .fd = growth_->mine.fd, .ipc = {}};
  if (!options_.map) result.ipc = pack_ipc(growth_->mine.native, growth_->mine.ipc);
  return result;
}

void SymmetricHeap::attach(uint32_t peer, int fd, std::string_view ipc, uint64_t bytes) {
  require_peer(peer);
  if (!growth_) throw ConfigError("attach() outside of a growth: call grow() first");
  if (is_apart(peer)) throw ConfigError("rank " + number(peer) + " is on another host");
  if (growth_->attached[peer]) throw ConfigError("rank " + number(peer) + " is attached already");
  if (bytes != growth_->bytes) {
    throw ConfigError("rank " + number(peer) + " offers a chunk of " + number(bytes) + " bytes, mine has " +
                      number(growth_->bytes));
  }
  if (options_.map) {
    Shareable memory = device_->import_shareable(fd, {}, bytes);
    try {
      device_->map(windows_[peer] + capacity_bytes(), memory);
    } catch (...) {
      device_->release(memory);
      throw;
    }
    device_->release(memory);
  } else {
    ipc_windows_[peer] = std::make_unique<PeerMemory>(device_, ipc, bytes);
    windows_[peer] = ipc_windows_[peer]->address();
  }
  growth_->attached[peer] = true;
}

void SymmetricHeap::commit() {
  if (!growth_) throw ConfigError("commit() outside of a growth: call grow() first");
  for (uint32_t peer = 0; peer < world_size_; ++peer) {
    if (growth_->attached[peer] || is_apart(peer)) continue;
    throw ConfigError("the chunk of rank " + number(peer) + " is not attached");
  }
  // In device memory, not in the argument block: the table may be larger than an argument may be.
  device_->copy(bases_address_, reinterpret_cast<uint64_t>(windows_.data()), world_size_ * sizeof(uint64_t));
  if (options_.map) {
    device_->release(growth_->mine);
  } else {
    ipc_chunk_ = growth_->mine;
  }
  chunk_bytes_.push_back(growth_->bytes);
  const uint64_t bytes = growth_->bytes;
  growth_.reset();
  const std::lock_guard lock(mutex_);
  allocator_.grow(bytes);
}

void SymmetricHeap::abandon() noexcept {
  if (!growth_) return;
  for (uint32_t peer = 0; peer < world_size_; ++peer) {
    if (growth_->attached[peer]) detach(peer, capacity_bytes(), growth_->bytes);
  }
  try {
    device_->release(growth_->mine);
  } catch (...) {
  }
  growth_.reset();
}

void SymmetricHeap::detach(uint32_t peer, uint64_t offset, uint64_t bytes) noexcept {
  try {
    if (options_.map) {
      device_->unmap(windows_[peer] + offset, bytes);
    } else {
      windows_[peer] = 0;
      ipc_windows_[peer].reset();
    }
  } catch (...) {
  }
}

std::shared_ptr<Allocation> SymmetricHeap::allocate(uint64_t bytes, uint64_t alignment, std::string name) {
  if (alignment > alignment_limit()) {
    throw ConfigError("alignment=" + number(alignment) + " exceeds what windows are aligned to, " +
                      number(alignment_limit()));
  }
  std::shared_ptr<Allocation> allocation;  // outlives the lock, which its destructor takes
  const std::lock_guard lock(mutex_);
  if (bytes > options_.reserve_bytes) return nullptr;
  const std::optional<uint64_t> offset = allocator_.allocate(needed_bytes(bytes), alignment);
  if (!offset) return nullptr;
  try {
    if (options_.debug) device_->fill(windows_[rank_] + *offset + bytes, kCanaryByte, kCanaryBytes);
    allocation = std::make_shared<Allocation>(shared_from_this(), *offset, bytes);
    ranges_[*offset] = {.bytes = bytes, .name = std::move(name), .owner = allocation};
  } catch (...) {
    allocator_.free(*offset);
    throw;
  }
  return allocation;
}

std::shared_ptr<Allocation> SymmetricHeap::find(uint64_t offset) const {
  const std::lock_guard lock(mutex_);
  auto range = ranges_.upper_bound(offset);
  if (range == ranges_.begin()) return nullptr;
  --range;
  const uint64_t end = range->first + std::max<uint64_t>(range->second.bytes, 1);
  return offset < end ? range->second.owner.lock() : nullptr;
}

void SymmetricHeap::released(uint64_t offset) noexcept {
  const std::lock_guard lock(mutex_);
  if (ranges_.contains(offset)) released_.push_back(offset);
}

std::vector<uint64_t> SymmetricHeap::take_released() {
  const std::lock_guard lock(mutex_);
  std::vector<uint64_t> offsets = std::exchange(released_, {});
  std::sort(offsets.begin(), offsets.end());
  return offsets;
}

void SymmetricHeap::free(uint64_t offset) {
  const std::lock_guard lock(mutex_);
  const auto found = ranges_.find(offset);
  if (found == ranges_.end()) {
    throw ConfigError("offset=" + number(offset) + " is not the start of an allocation");
  }
  if (!found->second.owner.expired()) {
    throw ConfigError("offset=" + number(offset) + " ('" + found->second.name + "') is still in use");
  }
  const Range range = found->second;
  ranges_.erase(found);
  allocator_.free(offset);
  if (options_.debug) check_canary(offset, range);
}

uint64_t SymmetricHeap::address(uint32_t peer, uint64_t offset) const {
  require_peer(peer);
  if (offset >= capacity_bytes()) {
    throw ConfigError("offset=" + number(offset) + " is outside the heap of " + number(capacity_bytes()) +
                      " bytes");
  }
  return is_apart(peer) ? 0 : windows_[peer] + offset;
}

std::optional<SymmetricHeap::Place> SymmetricHeap::locate(uint64_t address) const {
  const uint64_t capacity = capacity_bytes();
  for (uint32_t peer = 0; peer < world_size_; ++peer) {
    if (windows_[peer] != 0 && address - windows_[peer] < capacity) {
      return Place{.peer = peer, .offset = address - windows_[peer]};
    }
  }
  return std::nullopt;
}

void SymmetricHeap::quiesce() { synchronize_all(*device_); }

void SymmetricHeap::fill(uint64_t offset, uint8_t value, uint64_t bytes) {
  if (bytes == 0) return;
  if (bytes > capacity_bytes() || offset > capacity_bytes() - bytes) {
    throw ConfigError("offset=" + number(offset) + " and bytes=" + number(bytes) + " leave the heap of " +
                      number(capacity_bytes()) + " bytes");
  }
  device_->fill(windows_[rank_] + offset, value, bytes);
}

void SymmetricHeap::check_canaries() const {
  if (!options_.debug) return;
  const std::lock_guard lock(mutex_);
  for (const auto& [offset, range] : ranges_) check_canary(offset, range);
}

void SymmetricHeap::check_canary(uint64_t offset, const Range& range) const {
  std::array<uint8_t, kCanaryBytes> guard;
  device_->copy(reinterpret_cast<uint64_t>(guard.data()), windows_[rank_] + offset + range.bytes,
                kCanaryBytes);
  const auto hurt =
      std::find_if(guard.begin(), guard.end(), [](uint8_t byte) { return byte != kCanaryByte; });
  if (hurt == guard.end()) return;
  throw Error("memory overrun: '" + range.name + "' (" + number(range.bytes) + " bytes at offset " +
              number(offset) + " of rank " + number(rank_) + "'s heap) was written at byte " +
              number(range.bytes + uint64_t(hurt - guard.begin())) + ", past its end");
}

OffsetAllocator::Statistics SymmetricHeap::statistics() const {
  const std::lock_guard lock(mutex_);
  return allocator_.statistics();
}

uint64_t SymmetricHeap::capacity_bytes() const {
  const std::lock_guard lock(mutex_);
  return allocator_.capacity_bytes();
}

uint64_t SymmetricHeap::alignment_limit() const {
  if (!options_.map) return kIpcAlignment;
  return granularity_ & (~granularity_ + 1);  // reserved addresses are multiples of the granularity
}

void SymmetricHeap::require_peer(uint32_t peer) const {
  if (peer >= world_size_) {
    throw ConfigError("peer=" + number(peer) + " is not below world_size=" + number(world_size_));
  }
}

}  // namespace mori::core
