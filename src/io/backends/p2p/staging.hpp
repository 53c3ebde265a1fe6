// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// GPU memory for backends that move host memory: pinned chunks that are filled from a GPU region, or emptied
// into one, by the GPU while the backend's thread does something else.
//
//   sender    chunk = staging.take(region); chunk.fetch(list); ... chunk.ready() -> send chunk.data()
//   receiver  chunk = staging.take(region); receive into chunk.data(); chunk.store(list); ... chunk.ready()
//
// Take two or three chunks in turn and copies and network overlap. A chunk goes back to its pool when it is
// destroyed; that waits for a copy under way, so nothing lands after a job has ended.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "src/io/backends/p2p/p2p_memory.hpp"
#include "src/io/backends/p2p/p2p_worker.hpp"
#include "src/io/types.hpp"

namespace mori::io {

inline constexpr uint64_t kStagingChunkBytes = 4 << 20;

class Staging {
 public:
  class Chunk;

  explicit Staging(const P2pOptions& options = {});
  /// Every chunk is back.
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  /// Throws core::Error if this process does not have the region's GPU.
  void check(const Region& region) { static_cast<void>(gpus_.open(region.device)); }
  /// A chunk for a GPU region of this process. An empty one when all of its GPU are out: wait for one of
  /// yours, or come again. Throws core::Error if there is no such GPU or no pinned memory.
  Chunk take(const Region& region);

 private:
  struct Buffer;
  struct Pool {
    std::unique_ptr<p2p::Worker> worker;
    std::vector<std::unique_ptr<Buffer>> all;
    std::vector<Buffer*> free;
  };
  void give(int device, Buffer* buffer) noexcept;

  const P2pOptions options_;
  p2p::Gpus gpus_;
  std::mutex mutex_;  ///< of the pools
  std::map<int, Pool> pools_;
};

/// One user at a time.
class Staging::Chunk {
 public:
  Chunk() = default;
  Chunk(Chunk&& other) noexcept { swap(other); }
  Chunk& operator=(Chunk&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Chunk();

  explicit operator bool() const { return buffer_ != nullptr; }
  uint8_t* data() const;
  /// Queues region[s.remote, + s.bytes) -> data()[s.local, + s.bytes) for all of the list, at most
  /// p2p::kMaxPieces within a chunk. Throws core::Error.
  void fetch(std::span<const Segment> list) { queue(list, true); }
  /// The other way.
  void store(std::span<const Segment> list) { queue(list, false); }
  void fetch(uint64_t offset, uint64_t bytes) { queue_one(offset, bytes, true); }
  void store(uint64_t offset, uint64_t bytes) { queue_one(offset, bytes, false); }
  /// Whether the last fetch() or store() has ended; never waits. Throws core::Error if it failed.
  bool ready();
  /// Waits for it: about 100 us for a whole chunk over PCIe.
  void wait();

 private:
  friend class Staging;
  Chunk(Staging* owner, Buffer* buffer, const Region& region);
  void swap(Chunk& other) noexcept;
  void queue(std::span<const Segment> list, bool fetch);
  void queue_one(uint64_t offset, uint64_t bytes, bool fetch) {
    const Segment one{0, offset, bytes};
    queue({&one, 1}, fetch);
  }

  Staging* owner_ = nullptr;
  Buffer* buffer_ = nullptr;
  int device_ = -1;
  uint64_t address_ = 0;  ///< of the region
  bool queued_ = false;
};

}  // namespace mori::io
