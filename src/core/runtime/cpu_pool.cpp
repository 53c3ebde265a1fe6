// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// A job is open while its caller runs blocks of it. A worker that wakes too late finds it closed, or without
// blocks to start, and goes back to sleep: the caller never waits for a thread that has nothing to do.
#include "src/core/runtime/cpu_pool.hpp"

#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace mori::core {
namespace {

// Launches follow each other closely, and waking a thread costs some 5 us: look for this long before
// sleeping. Short, because the cores may be needed by other ranks.
constexpr int kSpins = 1000;  // about 20 us

void spin_pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");
#endif
}

template <class Ready>
void spin_for(Ready ready) {
  for (int i = 0; i < kSpins && !ready(); ++i) spin_pause();
}

}  // namespace

CpuPool::CpuPool(uint32_t threads) : threads_(threads == 0 ? 1 : threads) {
  for (uint32_t i = 1; i < threads_; ++i) schedulers_.push_back(std::make_unique<LaneScheduler>());
  for (auto& scheduler : schedulers_) workers_.emplace_back([this, &scheduler] { work(*scheduler); });
}

CpuPool::~CpuPool() {
  {
    std::lock_guard<std::mutex> guard(mutex_);
    quit_ = true;
    posted_.fetch_add(1, std::memory_order_release);
  }
  posted_signal_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void CpuPool::run(CpuJob& job) {
  std::lock_guard<std::mutex> caller(callers_);
  job.direct = job.lanes() == 1 && job.blocks <= threads_;
  if (threads_ == 1 || job.blocks == 1) {
    caller_scheduler_.run(job);
  } else {
    bool wake;
    {
      std::lock_guard<std::mutex> guard(mutex_);
      job_ = &job;
      posted_.fetch_add(1, std::memory_order_release);
      wake = sleeping_ != 0;
    }
    if (wake) posted_signal_.notify_all();
    caller_scheduler_.run(job);
    {
      std::lock_guard<std::mutex> guard(mutex_);
      job_ = nullptr;
    }
    spin_for([&] { return joined_.load(std::memory_order_acquire) == 0; });
    std::unique_lock<std::mutex> guard(mutex_);
    left_signal_.wait(guard, [&] { return joined_.load(std::memory_order_relaxed) == 0; });
  }
  if (std::exception_ptr failure = job.failure()) std::rethrow_exception(std::move(failure));
}

void CpuPool::work(LaneScheduler& scheduler) {
  uint64_t seen = 0;
  for (;;) {
    spin_for([&] { return posted_.load(std::memory_order_acquire) != seen; });
    CpuJob* job;
    {
      std::unique_lock<std::mutex> guard(mutex_);
      ++sleeping_;
      posted_signal_.wait(guard, [&] { return posted_.load(std::memory_order_relaxed) != seen; });
      --sleeping_;
      seen = posted_.load(std::memory_order_relaxed);
      if (quit_) return;
      job = job_;
      if (job == nullptr || !job->has_blocks()) continue;
      joined_.fetch_add(1, std::memory_order_relaxed);
    }
    scheduler.run(*job);
    std::lock_guard<std::mutex> guard(mutex_);
    if (joined_.fetch_sub(1, std::memory_order_release) == 1) left_signal_.notify_one();
  }
}

}  // namespace mori::core
