// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Sleeping on a 32-bit word with a deadline, which std::atomic::wait has not. Orders nothing by itself: load
// the word with acquire before and after.
#pragma once
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <ctime>

#include "src/io/backend.hpp"

namespace mori::io {

/// Returns when the word may differ from `seen`, when woken, or at the deadline; also for no reason.
inline void futex_wait(const std::atomic<int32_t>& word, int32_t seen, Deadline deadline) {
  timespec at{};
  timespec* until = nullptr;
  if (deadline != Deadline::max()) {
    const auto ns = std::chrono::duration_cast<std::chrono::nanoseconds>(deadline.time_since_epoch()).count();
    if (ns <= 0) return;
    at = {time_t(ns / 1'000'000'000), long(ns % 1'000'000'000)};
    until = &at;
  }
  // BITSET takes an absolute time of CLOCK_MONOTONIC, which is what Clock reads
  syscall(SYS_futex, &word, FUTEX_WAIT_BITSET_PRIVATE, seen, until, nullptr, FUTEX_BITSET_MATCH_ANY);
}

inline void futex_wake_all(const std::atomic<int32_t>& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace mori::io
