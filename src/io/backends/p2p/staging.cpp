// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/backends/p2p/staging.hpp"

#include <algorithm>
#include <chrono>
#include <string>
#include <thread>
#include <utility>

namespace mori::io {

struct Staging::Buffer {
  Buffer(p2p::Worker& gpu_worker, p2p::Lane& gpu_lane)
      : worker(gpu_worker), lane(gpu_lane), memory(worker.device()->allocate_host(kStagingChunkBytes)) {}
  p2p::Worker& worker;
  p2p::Lane& lane;
  core::HostMemory memory;
  p2p::Counters counters;
};

Staging::Staging(const P2pOptions& options) : options_(options), gpus_(options) {}

Staging::~Staging() {
  for (auto& [ordinal, pool] : pools_) {
    for (const std::unique_ptr<Buffer>& buffer : pool.all) {
      try {
        pool.worker->device()->free_host(buffer->memory);
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
  if (pool.worker == nullptr) pool.worker = std::make_unique<p2p::Worker>(device, options_);
  if (pool.free.empty()) {
    p2p::Lane* const lane = pool.worker->take();
    if (lane == nullptr) return {};
    try {
      pool.all.push_back(std::make_unique<Buffer>(*pool.worker, *lane));
    } catch (...) {
      pool.worker->give(lane);
      throw;
    }
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

void Staging::Chunk::queue(std::span<const Segment> list, bool fetch) {
  uint64_t bytes = 0;
  for (const Segment& s : list) {
    if (s.local > kStagingChunkBytes || s.bytes > kStagingChunkBytes - s.local) {
      throw core::ConfigError("bytes=" + std::to_string(s.bytes) + " at " + std::to_string(s.local) +
                              " do not lie in a chunk of " + std::to_string(kStagingChunkBytes));
    }
    bytes += s.bytes;
  }
  if (list.empty() || list.size() > p2p::kMaxPieces) {
    throw core::ConfigError("a list of " + std::to_string(list.size()) + " pieces; a chunk takes 1 to " +
                            std::to_string(p2p::kMaxPieces));
  }
  const auto piece = [&](const Segment& s) {
    const uint64_t there = address_ + s.remote, here = buffer_->memory.device + s.local;
    return fetch ? IoCopyPiece{here, there, s.bytes} : IoCopyPiece{there, here, s.bytes};
  };
  p2p::Worker& worker = buffer_->worker;
  queued_ = true;
  if (p2p::by_kernel(owner_->options_, list.size(), bytes, false)) {
    std::transform(list.begin(), list.end(), buffer_->lane.pieces(), piece);
    return worker.queue_pieces(buffer_->lane, uint32_t(list.size()), bytes, buffer_->counters);
  }
  try {
    for (const Segment& s : list) {
      const IoCopyPiece copy = piece(s);
      worker.queue_copy(buffer_->lane, copy.to, copy.from, copy.bytes, buffer_->counters);
    }
  } catch (const core::Error&) {
    buffer_->lane.queue.mark();  // what was queued before is waited for
    throw;
  }
  buffer_->lane.queue.mark();
}

bool Staging::Chunk::ready() {
  if (queued_ && !buffer_->lane.queue.reached()) return false;
  queued_ = false;
  return true;
}

void Staging::Chunk::wait() {
  while (!ready()) std::this_thread::sleep_for(std::chrono::microseconds(20));
}

}  // namespace mori::io
