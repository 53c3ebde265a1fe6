// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// GPU memory for backends that move host memory (tcp, file): pinned chunks that are filled from a GPU region,
// or emptied into one, by the GPU's copy engine while the backend's thread does something else.
//
//   sender    chunk = staging.take(region); chunk.fetch(offset, bytes); ... chunk.ready() -> send
//   chunk.data() receiver  chunk = staging.take(region); receive into chunk.data(); chunk.store(offset,
//   bytes); ... ready()
//
// Take two or three chunks in turn and copy and network overlap. A chunk goes back to its pool when it is
// destroyed; that waits for a copy under way, so nothing lands after a job has ended.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "src/core/runtime/copy_queue.hpp"
#include "src/io/backends/p2p/p2p_memory.hpp"
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

  /// A chunk for a GPU region of this process. An empty one when kMaxChunks of its GPU are out: wait for one
  /// of yours. Throws core::Error if there is no such GPU or no pinned memory.
  Chunk take(const Region& region);

 private:
  static constexpr size_t kMaxChunks = 16;
  struct Buffer;
  struct Pool {
    std::vector<std::unique_ptr<Buffer>> all;
    std::vector<Buffer*> free;
  };
  void give(int device, Buffer* buffer) noexcept;

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
  /// Queues region[offset, offset + bytes) -> data(). At most kStagingChunkBytes. Throws core::Error.
  void fetch(uint64_t offset, uint64_t bytes) { queue(offset, bytes, true); }
  /// Queues data() -> region[offset, offset + bytes).
  void store(uint64_t offset, uint64_t bytes) { queue(offset, bytes, false); }
  /// Whether the last fetch() or store() has ended; never waits. Throws core::Error if it failed.
  bool ready();
  /// Waits for it: about 100 us for a whole chunk over PCIe.
  void wait();

 private:
  friend class Staging;
  Chunk(Staging* owner, Buffer* buffer, const Region& region);
  void swap(Chunk& other) noexcept;
  void queue(uint64_t offset, uint64_t bytes, bool fetch);

  Staging* owner_ = nullptr;
  Buffer* buffer_ = nullptr;
  int device_ = -1;
  uint64_t address_ = 0;  ///< of the region
  bool queued_ = false;
};

}  // namespace mori::io
