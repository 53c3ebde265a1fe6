// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// A barrier of all ranks in stream order: whatever was queued before it on any rank's stream happens before
// whatever is queued behind it on every rank's. One small kernel, capturable in a graph.
#pragma once
#include <cstdint>
#include <memory>

#include "src/core/context.hpp"
#include "src/shmem/barrier_args.hpp"

namespace mori::shmem {

class StreamBarrier {
 public:
  /// Symmetric memory that a barrier between `world_size` ranks needs, zero-filled.
  static uint64_t heap_bytes(uint32_t world_size) { return 8ull * world_size; }

  /// `heap_offset`: start of that memory, kept by the caller while a queued barrier may use it.
  StreamBarrier(std::shared_ptr<core::Context> context, uint64_t heap_offset);

  /// Queues the barrier. A rank that does not come within the context's timeout is recorded in its error
  /// word.
  void launch(uint64_t stream) const;

 private:
  std::shared_ptr<core::Context> context_;
  const core::Function* kernel_;
  core::LaunchShape shape_;
  BarrierArgs args_;
};

}  // namespace mori::shmem
