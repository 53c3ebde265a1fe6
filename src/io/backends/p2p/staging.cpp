// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/backends/p2p/staging.hpp"

#include <chrono>
#include <thread>
#include <utility>

namespace mori::io {

struct Staging::Buffer {
  explicit Buffer(const std::shared_ptr<core::Device>& device)
      : queue(device), memory(device->allocate_host(kStagingChunkBytes)) {}
  core::CopyQueue queue;
  core::HostMemory memory;
};

Staging::Staging(const P2pOptions& options) : gpus_(options) {}

Staging::~Staging() {
  for (auto& [ordinal, pool] : pools_) {
    for (const std::unique_ptr<Buffer>& buffer : pool.all) {
      try {
        buffer->queue.device()->free_host(buffer->memory);
      } catch (...) {  // a device that failed cannot be tidied up; the process's end does it
      }
    }
  }
}

Staging::Chunk Staging::take(const Region& region) {
  if (region.location != Location::gpu) throw core::ConfigError("only GPU memory is staged");
  const std::shared_ptr<core::Device> device = gpus_.open(region.device);
  const std::lock_guard lock(mutex_);
  Pool& pool = pools_[region.device];
  if (pool.free.empty()) {
    if (pool.all.size() == kMaxChunks) return {};
    pool.all.push_back(std::make_unique<Buffer>(device));
    pool.free.push_back(pool.all.back().get());
  }
  Buffer* const buffer = pool.free.back();
  pool.free.pop_back();
  return {this, buffer, region};
}

void Staging::give(int device, Buffer* buffer) noexcept {
  const std::lock_guard lock(mutex_);
  pools_[device].free.push_back(buffer);
}

Staging::Chunk::Chunk(Staging* owner, Buffer* buffer, const Region& region)
    : owner_(owner), buffer_(buffer), device_(region.device), address_(region.address) {}

Staging::Chunk::~Chunk() {
  if (buffer_ == nullptr) return;
  try {
    if (queued_) wait();
  } catch (const core::Error&) {  // a GPU that fails everything copies nothing either
  }
  owner_->give(device_, buffer_);
}

void Staging::Chunk::swap(Chunk& other) noexcept {
  std::swap(owner_, other.owner_);
  std::swap(buffer_, other.buffer_);
  std::swap(device_, other.device_);
  std::swap(address_, other.address_);
  std::swap(queued_, other.queued_);
}

uint8_t* Staging::Chunk::data() const { return static_cast<uint8_t*>(buffer_->memory.host); }

void Staging::Chunk::queue(uint64_t offset, uint64_t bytes, bool fetch) {
  if (bytes > kStagingChunkBytes) {
    throw core::ConfigError("bytes=" + std::to_string(bytes) + " is more than a chunk of " +
                            std::to_string(kStagingChunkBytes));
  }
  const uint64_t there = address_ + offset, here = buffer_->memory.device;
  queued_ = true;
  buffer_->queue.copy(fetch ? here : there, fetch ? there : here, bytes);
  buffer_->queue.mark();
}

bool Staging::Chunk::ready() {
  if (queued_ && !buffer_->queue.reached()) return false;
  queued_ = false;
  return true;
}

void Staging::Chunk::wait() {
  while (!ready()) std::this_thread::sleep_for(std::chrono::microseconds(20));
}

}  // namespace mori::io
