// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/metrics.hpp"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <utility>

namespace mori::io {

size_t Metrics::bucket(uint64_t ns) {
  const uint64_t us = (ns + 999) / 1000;
  return us <= 1 ? 0 : std::min<size_t>(size_t(std::bit_width(us - 1)), kBuckets - 1);
}

void Trace::add(TraceEvent event) {
  if (!on()) return;
  event.ns = now_ns();
  event.thread = uint32_t(syscall(SYS_gettid));
  const std::lock_guard lock(mutex_);
  if (ring_.size() < capacity_)
    ring_.push_back(event);
  else
    ring_[written_ % capacity_] = event;
  ++written_;
}

std::pair<std::vector<TraceEvent>, uint64_t> Trace::take() {
  const std::lock_guard lock(mutex_);
  const uint64_t lost = written_ - ring_.size();
  std::vector<TraceEvent> events = std::exchange(ring_, {});
  if (lost > 0) std::rotate(events.begin(), events.begin() + ptrdiff_t(written_ % capacity_), events.end());
  written_ = 0;
  return {std::move(events), lost};
}

uint64_t now_ns() {
  return uint64_t(std::chrono::duration_cast<std::chrono::nanoseconds>(
                      std::chrono::steady_clock::now().time_since_epoch())
                      .count());
}

}  // namespace mori::io
