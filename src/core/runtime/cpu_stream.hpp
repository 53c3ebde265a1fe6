// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// A stream of the CPU device: kernels run in the order in which they were queued, on threads of the stream.
// A kernel that fails takes those queued behind it with it; synchronize() throws what it failed with, once,
// and the stream is usable again.
#pragma once
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "src/core/runtime/cpu_code.hpp"
#include "src/core/runtime/cpu_pool.hpp"
#include "src/core/runtime/device.hpp"

namespace mori::core {

/// Runs one launch to its end on the pool.
void run_cpu_kernel(CpuPool& pool, const CpuKernel& kernel, const LaunchShape& shape, const void* args);

class CpuStream {
 public:
  explicit CpuStream(uint32_t threads);
  ~CpuStream();  ///< runs what is queued first
  CpuStream(const CpuStream&) = delete;
  CpuStream& operator=(const CpuStream&) = delete;

  void queue(const CpuKernel& kernel, const LaunchShape& shape, const void* args);
  void synchronize();

 private:
  struct Launch {
    const CpuKernel* kernel;
    LaunchShape shape;
    std::vector<std::max_align_t> args;
  };
  void work();

  CpuPool pool_;
  std::mutex mutex_;  ///< of what follows
  std::condition_variable queued_signal_, idle_signal_;
  std::deque<Launch> launches_;
  std::exception_ptr failure_;
  bool running_ = false, quit_ = false;
  std::thread worker_;
};

}  // namespace mori::core
