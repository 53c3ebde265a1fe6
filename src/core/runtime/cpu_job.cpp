// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The parts of a launch that know nothing of lanes.
#include "src/core/runtime/cpu_job.hpp"

#include <sched.h>
#include <time.h>

#include <cstring>
#include <new>
#include <utility>

namespace mori::core {
namespace {

// 8 ranks that exchange 7 MB on 2 cores: 1.6 ms; with 400 yields 3.9 ms, without sleeping 5.1 ms. Exchanges
// of 64 KB between them take the same 80 us with all three.
constexpr uint32_t kYieldsBeforeSleep = 50;
constexpr uint64_t kBusyGap_ns =
    600;  // more than a poll: a lane that worked so long between two looks waits anew
constexpr long kSleep_ns = 1'000;  // plus the kernel's timer slack, 50 us by default
#if defined(__SANITIZE_ADDRESS__)
constexpr size_t kGuardBytes = 0;  // the sanitizer sees the end itself
#else
constexpr size_t kGuardBytes = 64;  // behind a block's shared memory
#endif

uint64_t now_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return uint64_t(t.tv_sec) * 1'000'000'000u + uint64_t(t.tv_nsec);
}

}  // namespace

bool CpuJob::take_block(uint32_t& block) {
  if (!has_blocks()) return false;
  block = started.fetch_add(1, std::memory_order_relaxed);
  return block < blocks;
}

void CpuJob::abandon(std::exception_ptr why) {
  std::lock_guard<std::mutex> guard(mutex_);
  if (!failure_) failure_ = std::move(why);
  abandoned.store(true, std::memory_order_relaxed);
}

void BackOff::give_way() {
  if (now_ns() - last_ns_ > kBusyGap_ns) in_a_row_ = 0;
  if (++in_a_row_ <= kYieldsBeforeSleep) {
    sched_yield();
  } else {
    const timespec sleep{0, kSleep_ns};
    nanosleep(&sleep, nullptr);
  }
  last_ns_ = now_ns();
}

unsigned char* BlockMemory::prepare(size_t bytes) {
  if (bytes != bytes_) {  // exactly sized, so that AddressSanitizer sees its end
    release();
    data_ = static_cast<unsigned char*>(::operator new(bytes + kGuardBytes, std::align_val_t(64)));
    bytes_ = bytes;
  }
  if (bytes == 0) return nullptr;
  memset(data_, kSharedPoison, bytes + kGuardBytes);
  return data_;
}

bool BlockMemory::guard_intact() const {
  if (bytes_ == 0) return true;
  for (size_t i = 0; i < kGuardBytes; ++i) {
    if (data_[bytes_ + i] != kSharedPoison) return false;
  }
  return true;
}

void BlockMemory::release() {
  ::operator delete(data_, std::align_val_t(64));
  data_ = nullptr;
  bytes_ = 0;
}

}  // namespace mori::core
