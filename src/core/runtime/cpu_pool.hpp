// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The threads that run kernels of one stream of the CPU device. The calling thread is one of them, so a pool
// of one thread starts none and a launch on it is little more than a function call.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "src/core/runtime/cpu_scheduler.hpp"

namespace mori::core {

class CpuPool {
 public:
  explicit CpuPool(uint32_t threads);
  ~CpuPool();
  CpuPool(const CpuPool&) = delete;
  CpuPool& operator=(const CpuPool&) = delete;

  /// Runs the job and returns when all of it is done; one after the other when several threads call.
  /// Sets job.direct. Throws what the job failed with; the pool stays usable.
  void run(CpuJob& job);

 private:
  void work(LaneScheduler& scheduler);

  const uint32_t threads_;
  std::mutex callers_;  ///< held by run
  LaneScheduler caller_scheduler_;

  std::mutex mutex_;  ///< of what follows
  std::condition_variable posted_signal_, left_signal_;
  CpuJob* job_ = nullptr;  ///< open for threads to join
  uint32_t sleeping_ = 0;
  bool quit_ = false;
  std::atomic<uint64_t> posted_{0};  ///< jobs so far; written under mutex_, spun on without it
  std::atomic<uint32_t> joined_{0};  ///< workers in the job; written under mutex_, spun on without it

  std::vector<std::unique_ptr<LaneScheduler>> schedulers_;
  std::vector<std::thread> workers_;
};

}  // namespace mori::core
