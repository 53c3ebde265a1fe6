// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Collectives that move bytes with no kernel: each member stages what others want, all meet, each copies what
// it wants out of the others' staging, all meet. docs/ccl_zero_cu.md has the protocol, and what ends a wait.
#pragma once
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "src/core/context.hpp"
#include "src/core/runtime/step_stream.hpp"
#include "src/ops/ccl/ccl_args.hpp"

namespace mori::ccl {

inline constexpr uint32_t kCopiesWords = 896;

/// A member's symmetric memory: flags of the others, words that its own signals are copied from, staging.
struct CopiesRegion {
  uint32_t flags[2][kCclMembers];  ///< by meeting of a step, by member: its call's digest, or 0
  uint32_t words[kCopiesWords];    ///< a digest each, until this member gives up
};
static_assert(sizeof(CopiesRegion) == 4096, "staging begins behind it");

/// One member's. Not thread-safe.
class Copies {
 public:
  /// `region`: offset in the symmetric heap, of zeros; `staging_bytes` follow it.
  Copies(std::shared_ptr<core::Context> context, uint64_t region, uint64_t staging_bytes,
         std::vector<uint32_t> ranks, uint32_t index);
  ~Copies();
  Copies(const Copies&) = delete;
  Copies& operator=(const Copies&) = delete;

  /// all_gather, all_to_all, broadcast, scatter, gather of parts of `count` bytes. `digest`: of what all
  /// members call alike, neither 0 nor kGone. On a GPU queued, on the CPU done or failed: see the error word.
  void run(CclOp op, uint64_t source, uint64_t dest, uint64_t count, uint32_t root, uint32_t digest,
           uint64_t stream);

 private:
  /// In host memory that the stream writes, so that nobody need ask the driver.
  struct Progress {
    uint32_t waiting;  ///< 1 + meeting * kCclMembers + member while a wait is next, else 0
    uint32_t value;    ///< that it waits for
    uint32_t moved;    ///< a wait has ended since the watcher looked
  };
  uint32_t members() const { return uint32_t(ranks_.size()); }
  uint32_t behind(uint32_t i) const { return (index_ + i) % members(); }
  uint64_t flag(uint32_t at, uint32_t meeting, uint32_t of) const;
  uint64_t staging(uint32_t of) const { return regions_[of] + sizeof(CopiesRegion); }
  uint64_t progress(size_t field) const { return progress_.device + field; }
  void queue(CclOp op, uint64_t source, uint64_t dest, uint64_t count, uint32_t root, uint32_t digest,
             uint64_t word);
  void meet(uint32_t meeting, uint32_t digest, uint64_t word);
  uint64_t word_of(uint32_t digest);
  void look();
  void give_up();
  void watch();

  std::shared_ptr<core::Context> context_;
  uint64_t staging_bytes_;
  std::vector<uint32_t> ranks_;
  uint32_t index_;
  std::vector<uint64_t> regions_;  ///< of the members, as mapped here
  core::HostMemory progress_;
  std::unique_ptr<core::StepStream> steps_;
  std::chrono::steady_clock::time_point since_ = std::chrono::steady_clock::now();
  std::mutex mutex_;             ///< of what follows
  std::vector<uint32_t> words_;  ///< digests of CopiesRegion::words
  bool failed_ = false;
  std::condition_variable quitting_;
  bool quit_ = false;
  std::thread watcher_;  ///< GPUs only: on the CPU the caller watches
};

}  // namespace mori::ccl
