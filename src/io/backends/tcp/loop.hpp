// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The backend's one I/O thread: epoll over the streams, timers, small tasks. Starts with the first stream and
// sleeps while nothing comes. After something came it looks again without sleeping for kSpin, because the
// next request of a busy peer follows within microseconds.
#pragma once
#include <sys/types.h>

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "src/io/backend.hpp"

namespace mori::io::tcp {

constexpr std::chrono::microseconds kSpin{50};

/// Something with a file descriptor in the loop.
class Source {
 public:
  virtual ~Source() = default;
  /// On the I/O thread.
  virtual void ready(uint32_t events) = 0;
};

class Loop {
 public:
  Loop();
  ~Loop() { stop(); }
  Loop(const Loop&) = delete;
  Loop& operator=(const Loop&) = delete;

  /// Any thread. A number for add(): known to the source before its first event.
  uint64_t number() { return next_.fetch_add(1); }
  /// Keeps the source until remove().
  void add(uint64_t number, std::shared_ptr<Source> source, int fd, uint32_t events);
  void set(uint64_t number, int fd, uint32_t events);
  void remove(uint64_t number);
  /// Runs `task` on the I/O thread at that time.
  void at(Deadline time, std::function<void()> task);
  void post(std::function<void()> task) { at(Deadline::min(), std::move(task)); }
  void stop();

 private:
  void start_locked();
  void run();
  int run_timers();

  Fd epoll_, wake_;
  std::mutex mutex_;
  std::map<uint64_t, std::shared_ptr<Source>> sources_;
  std::multimap<Deadline, std::function<void()>> timers_;
  std::atomic<uint64_t> next_{1};
  std::atomic<bool> stopping_{false};
  std::thread thread_;
  pid_t pid_ = 0;
};

}  // namespace mori::io::tcp
