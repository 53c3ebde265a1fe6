// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// One worker takes launches from a queue and shares them with the stream's pool.
#include "src/core/runtime/cpu_stream.hpp"

#include <cstring>
#include <utility>

namespace mori::core {

void run_cpu_kernel(CpuPool& pool, const CpuKernel& kernel, const LaunchShape& shape, const void* args) {
  CpuJob job;
  job.run = kernel.run;
  job.args = args;
  job.name = kernel.name.c_str();
  job.blocks = shape.blocks;
  job.warps = shape.warps;
  job.warp_size = kernel.warp_size;
  job.shared_bytes = shape.shared_bytes;
  job.current = kernel.current;
  pool.run(job);
}

CpuStream::CpuStream(uint32_t threads) : pool_(threads), worker_([this] { work(); }) {}

CpuStream::~CpuStream() {
  {
    std::lock_guard<std::mutex> guard(mutex_);
    quit_ = true;
  }
  queued_signal_.notify_one();
  worker_.join();
}

void CpuStream::queue(const CpuKernel& kernel, const LaunchShape& shape, const void* args) {
  constexpr size_t kUnit = sizeof(std::max_align_t);
  Launch launch{&kernel, shape, std::vector<std::max_align_t>((kernel.args_bytes + kUnit - 1) / kUnit)};
  memcpy(launch.args.data(), args, kernel.args_bytes);
  {
    std::lock_guard<std::mutex> guard(mutex_);
    if (failure_) return;  // synchronize() has yet to report why
    launches_.push_back(std::move(launch));
  }
  queued_signal_.notify_one();
}

void CpuStream::synchronize() {
  std::unique_lock<std::mutex> guard(mutex_);
  idle_signal_.wait(guard, [&] { return launches_.empty() && !running_; });
  if (std::exception_ptr failure = std::exchange(failure_, nullptr)) std::rethrow_exception(failure);
}

void CpuStream::work() {
  std::unique_lock<std::mutex> guard(mutex_);
  for (;;) {
    queued_signal_.wait(guard, [&] { return quit_ || !launches_.empty(); });
    if (launches_.empty()) return;
    const Launch launch = std::move(launches_.front());
    launches_.pop_front();
    running_ = true;
    guard.unlock();
    std::exception_ptr failure;
    try {
      run_cpu_kernel(pool_, *launch.kernel, launch.shape, launch.args.data());
    } catch (...) {
      failure = std::current_exception();
    }
    guard.lock();
    running_ = false;
    if (failure) {
      failure_ = failure;
      launches_.clear();
    }
    if (launches_.empty()) idle_signal_.notify_all();
  }
}

}  // namespace mori::core
