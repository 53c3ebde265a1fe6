// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/status.hpp"

#include <sys/eventfd.h>
#include <unistd.h>
#include <utility>

#include "src/io/errors.hpp"
#include "src/io/futex.hpp"

namespace mori::io {

const char* status_name(StatusCode code) {
  switch (code) {
    case StatusCode::success:
      return "success";
    case StatusCode::init:
      return "init";
    case StatusCode::in_progress:
      return "in_progress";
    case StatusCode::err_begin:
      return "err_begin";
    case StatusCode::err_invalid_args:
      return "err_invalid_args";
    case StatusCode::err_not_found:
      return "err_not_found";
    case StatusCode::err_rdma_op:
      return "err_rdma_op";
    case StatusCode::err_bad_state:
      return "err_bad_state";
    case StatusCode::err_gpu_op:
      return "err_gpu_op";
    case StatusCode::err_timeout:
      return "err_timeout";
    case StatusCode::err_cancelled:
      return "err_cancelled";
    case StatusCode::err_peer_lost:
      return "err_peer_lost";
    case StatusCode::err_transport:
      return "err_transport";
    case StatusCode::err_denied:
      return "err_denied";
    case StatusCode::err_io:
      return "err_io";
  }
  return "unknown";
}

Completions::Completions() : fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (fd_ < 0) throw core::TransportError("eventfd failed: out of file descriptors");
}

Completions::~Completions() { ::close(fd_); }

void Completions::push(uint64_t id) {
  bool first;
  {
    const std::lock_guard lock(mutex_);
    first = ready_.empty();
    ready_.push_back(id);
  }
  if (first) eventfd_write(fd_, 1);
}

std::vector<uint64_t> Completions::take() {
  const std::lock_guard lock(mutex_);
  eventfd_t ignored;
  eventfd_read(fd_, &ignored);
  return std::exchange(ready_, {});
}

std::string Status::message() const {
  const std::lock_guard lock(mutex_);
  return message_;
}

void Status::update(StatusCode code, std::string message) { set(code, std::move(message)); }

bool Status::set(StatusCode code, std::string message) {
  decltype(listeners_) listeners;
  {
    const std::lock_guard lock(mutex_);
    if (is_terminal(StatusCode(code_.load(std::memory_order_relaxed)))) return false;
    message_ = std::move(message);
    if (is_terminal(code)) listeners.swap(listeners_);
    // sequentially consistent with the waiters' count: either they see the code, or this sees them
    code_.store(int32_t(code));
  }
  if (waiters_.load() > 0) futex_wake_all(code_);
  for (const auto& [queue, id] : listeners) queue->push(id);
  return true;
}

void Status::tell(std::shared_ptr<Completions> queue, uint64_t id) {
  {
    const std::lock_guard lock(mutex_);
    if (!is_terminal(StatusCode(code_.load(std::memory_order_relaxed)))) {
      listeners_.emplace_back(std::move(queue), id);
      return;
    }
  }
  queue->push(id);
}

StatusCode Status::wait(Deadline deadline) {
  constexpr int kSpins = 400;  // some 10 us: less than a sleep and a wake cost, and the end may be near
  StatusCode seen = code();
  if (is_terminal(seen)) return seen;
  check_process();
  if (deadline != Deadline::max() && Clock::now() >= deadline) return seen;  // a poll does no work
  while (help()) {
    seen = code();
    if (is_terminal(seen) || (deadline != Deadline::max() && Clock::now() >= deadline)) return seen;
  }
  for (int i = 0; i < kSpins; ++i) {
    seen = code();
    if (is_terminal(seen)) return seen;
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
  waiters_.fetch_add(1);
  while (true) {
    const int32_t raw = code_.load();
    seen = StatusCode(raw);
    if (is_terminal(seen) || (deadline != Deadline::max() && Clock::now() >= deadline)) break;
    futex_wait(code_, raw, deadline);
  }
  waiters_.fetch_sub(1);
  return code();
}

StatusCode wait_all(std::span<const std::shared_ptr<Status>> statuses, Deadline deadline) {
  StatusCode first_failure = StatusCode::success;
  bool in_progress = false;
  for (const auto& status : statuses) {
    const StatusCode code = status->wait(deadline);
    if (!is_terminal(code))
      in_progress = true;
    else if (is_failure(code) && first_failure == StatusCode::success)
      first_failure = code;
  }
  return in_progress ? StatusCode::in_progress : first_failure;
}

}  // namespace mori::io
