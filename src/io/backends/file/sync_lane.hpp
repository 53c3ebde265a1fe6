// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Jobs by preadv2 and pwritev2 in a few threads: where io_uring is forbidden, and for GPU memory, which is
// staged through pinned host memory block by block.
#pragma once
#include <memory>
#include <mutex>
#include <vector>

#include "src/io/backends/crew.hpp"
#include "src/io/backends/file/file_link.hpp"
#include "src/io/backends/file/ring_lane.hpp"

namespace mori::io::file {

/// Pinned host memory beside a GPU.
class DeviceChunks {
 public:
  static constexpr uint64_t kBytes = 1u << 20;  ///< of a chunk, at least
  class Chunk {
   public:
    virtual ~Chunk() = default;  ///< no copy is under way afterwards
    virtual uint8_t* data() = 0;
    // Both return when the bytes are there; they throw core::Error. Offsets are into the GPU region.
    virtual void fetch(uint64_t offset, uint64_t bytes) = 0;
    virtual void store(uint64_t offset, uint64_t bytes) = 0;
  };
  virtual ~DeviceChunks() = default;
  /// Null: all are out; come again.
  virtual std::unique_ptr<Chunk> take(const Region& region) = 0;
};

class SyncLane {
 public:
  SyncLane(const LaneOptions& options, size_t threads, LaneCounters& counters,
           std::shared_ptr<DeviceChunks> device);

  /// The gate of the job's route was entered; it is left after finish().
  void submit(JobPtr job) { crew_.submit(std::move(job), {kRequestPieces, options_.block_bytes}); }
  bool help(Job& job) { return crew_.help(job); }

 private:
  Outcome carry(Job& job, std::span<const Segment> piece);
  Outcome carry_host(Job& job, FileLink& link, std::span<const Segment> piece, uint8_t* local);
  Outcome carry_chunk(Job& job, FileLink& link, const Segment& part, DeviceChunks::Chunk& chunk);
  Outcome carry_request(Job& job, FileLink& link, Request& request, uint8_t* local);
  int32_t call(Op op, FileLink& link, const Request& request);

  /// A block with any alignment that O_DIRECT may want; they are kept.
  struct Free {
    void operator()(uint8_t* block) const;
  };
  using Block = std::unique_ptr<uint8_t[], Free>;
  Block take_block();

  const LaneOptions options_;
  LaneCounters& counters_;
  const std::shared_ptr<DeviceChunks> device_;
  std::mutex mutex_;
  std::vector<Block> blocks_;
  Crew crew_;  ///< last: its threads use the others
};

}  // namespace mori::io::file
