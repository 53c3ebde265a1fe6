// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Options, and the GPU's pinned chunks.
#include "src/io/backends/file/file.hpp"

#include <optional>

#include "src/core/errors.hpp"
#include "src/io/backends/file/file_backend.hpp"
#include "src/io/backends/p2p/staging.hpp"

namespace mori::io::file {
namespace {

class Pinned final : public DeviceChunks {
 public:
  static_assert(kBytes <= kStagingChunkBytes);
  std::unique_ptr<Chunk> take(const Region& region) override {
    Staging::Chunk chunk = staging_.take(region);
    if (!chunk) return nullptr;
    return std::make_unique<PinnedChunk>(std::move(chunk));
  }

 private:
  class PinnedChunk final : public Chunk {
   public:
    explicit PinnedChunk(Staging::Chunk chunk) : chunk_(std::move(chunk)) {}
    uint8_t* data() override { return chunk_.data(); }
    void fetch(uint64_t offset, uint64_t bytes) override {
      chunk_.fetch(offset, bytes);
      chunk_.wait();
      static_cast<void>(chunk_.ready());  // throws if the copy failed
    }
    void store(uint64_t offset, uint64_t bytes) override {
      chunk_.store(offset, bytes);
      chunk_.wait();
      static_cast<void>(chunk_.ready());
    }

   private:
    Staging::Chunk chunk_;
  };
  Staging staging_;
};

}  // namespace

std::unique_ptr<Backend> make_backend(Host& host, const BackendOptions& options) {
  Options file;
  file.io_uring = options.flag("io_uring", file.io_uring);
  file.threads = static_cast<size_t>(options.integer("threads", static_cast<int64_t>(file.threads), 1, 64));
  file.lane.depth = static_cast<uint32_t>(options.integer("depth", file.lane.depth, 1, 1024));
  file.lane.block_bytes = static_cast<uint64_t>(
      options.integer("block_bytes", static_cast<int64_t>(file.lane.block_bytes), 4096, 64 << 20));
  if (file.lane.block_bytes % 4096 != 0) {
    throw core::ConfigError("block_bytes=" + std::to_string(file.lane.block_bytes) +
                            " is not a multiple of 4096");
  }
  file.device = std::make_shared<Pinned>();
  return std::make_unique<FileBackend>(host, std::move(file));
}

}  // namespace mori::io::file
