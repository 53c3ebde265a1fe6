// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/backends/tcp/loop.hpp"

#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <vector>

#include "src/io/control/socket.hpp"
#include "src/io/errors.hpp"
#include "src/io/threads.hpp"

namespace mori::io::tcp {

Loop::Loop() : epoll_(::epoll_create1(EPOLL_CLOEXEC)), wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!epoll_ || !wake_) throw core::TransportError("epoll: " + control::errno_text(errno));
  epoll_event event{};
  event.events = EPOLLIN;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_.get(), &event);
}

void Loop::start_locked() {
  if (thread_.joinable() || stopping_) return;
  pid_ = ::getpid();
  thread_ = start_thread("mori-io-tcp", [this] { run(); });
}

void Loop::add(uint64_t number, std::shared_ptr<Source> source, int fd, uint32_t events) {
  std::lock_guard lock(mutex_);
  start_locked();
  sources_[number] = std::move(source);
  epoll_event event{};
  event.events = events;
  event.data.u64 = number;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event);
}

void Loop::set(uint64_t number, int fd, uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = number;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event);
}

void Loop::remove(uint64_t number) {
  std::shared_ptr<Source> last;  // destroyed without the lock
  std::lock_guard lock(mutex_);
  const auto found = sources_.find(number);
  if (found == sources_.end()) return;
  last = std::move(found->second);
  sources_.erase(found);
}

void Loop::at(Deadline time, std::function<void()> task) {
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return;
    start_locked();
    timers_.emplace(time, std::move(task));
  }
  const uint64_t one = 1;
  if (::write(wake_.get(), &one, sizeof one) < 0) return;  // full: it wakes anyway
}

int Loop::run_timers() {
  for (;;) {
    std::function<void()> task;
    {
      std::lock_guard lock(mutex_);
      if (timers_.empty()) return -1;
      const auto first = timers_.begin();
      if (first->first > Clock::now()) return control::poll_ms(first->first);
      task = std::move(first->second);
      timers_.erase(first);
    }
    task();
  }
}

void Loop::run() {
  Deadline spin_until = Deadline::min();
  while (!stopping_) {
    const int sleep_ms = run_timers();
    epoll_event events[32];
    int count = ::epoll_wait(epoll_.get(), events, 32, 0);
    if (count == 0) {
      if (Clock::now() < spin_until) {
        ::sched_yield();  // the peer may need this very core to go on
        continue;
      }
      count = ::epoll_wait(epoll_.get(), events, 32, sleep_ms);
    }
    for (int i = 0; i < count && !stopping_; ++i) {
      if (events[i].data.u64 == 0) {
        uint64_t value;
        if (::read(wake_.get(), &value, sizeof value) < 0) continue;
        continue;
      }
      std::shared_ptr<Source> source;
      {
        std::lock_guard lock(mutex_);
        const auto found = sources_.find(events[i].data.u64);
        if (found != sources_.end()) source = found->second;
      }
      if (source) source->ready(events[i].events);
    }
    if (count > 0) spin_until = Clock::now() + kSpin;
  }
}

void Loop::stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  const uint64_t one = 1;
  if (thread_.joinable()) {
    if (pid_ != ::getpid()) {
      thread_.detach();  // a forked child has no such thread
    } else {
      if (::write(wake_.get(), &one, sizeof one) < 0) {
        // full: it wakes anyway
      }
      thread_.join();
    }
  }
  std::map<uint64_t, std::shared_ptr<Source>> sources;
  sources.swap(sources_);
  timers_.clear();
}

}  // namespace mori::io::tcp
