// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The progress thread. It looks for completions while work is under way, for at most `spin` without finding
// one; then it arms the completion queues, looks once more (a completion between looking and arming would
// raise no event) and sleeps until a NIC, a caller or a deadline wakes it. Idle, it sleeps for ever.
#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>

#include "src/io/backends/rdma/rdma_backend.hpp"

namespace mori::io::rdma {
namespace {

constexpr std::chrono::milliseconds kWatchEvery{5};

void pause() {
#if defined(__x86_64__)
  for (int i = 0; i < 16; ++i) __builtin_ia32_pause();
#endif
  std::this_thread::yield();  // the peer, or a software NIC, may wait for this core
}

}  // namespace

void RdmaBackend::wake() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof one);
}

bool RdmaBackend::progress_once() {
  bool did = false;
  const auto now = Clock::now();
  const bool look = nudged_ || now >= watch_at_;
  if (look) {
    nudged_ = false;
    watch_at_ = now + kWatchEvery;
  }
  for (const auto& link : active_) {
    did |= poll(*link);
    if (look) watch(*link, now);
  }
  return did || !done_.empty();
}

void RdmaBackend::progress_loop() {
  auto last = Clock::now();
  for (;;) {
    Done done;
    bool did = false, busy = false;
    {
      Lock lock(mutex_);
      if (closing_) return;
      did = progress_once();
      busy = in_flight_ > 0;
      done = take_done();
    }
    deliver(std::move(done));
    if (did) {
      last = Clock::now();
      continue;
    }
    if (busy && config_.busy_poll && Clock::now() - last < config_.spin) {
      pause();
      continue;
    }
    Deadline timer = Deadline::max();
    {
      Lock lock(mutex_);
      for (const auto& link : active_) {
        for (const auto& rail : link->rails) verbs::request_notify(rail->cq);
      }
      did = progress_once();
      done = take_done();
      timer = alarm_ = next_timer();
    }
    deliver(std::move(done));
    if (!did) sleep_until(timer);
    last = Clock::now();
  }
}

Deadline RdmaBackend::next_timer() const {
  Deadline next = Deadline::max();
  for (const auto& link : active_) {
    for (const auto& [work, owner] : link->works) {
      if (!work->stopped) {
        next = std::min(next, work->job->deadline());
      } else if (!work->cut && work->under_way > 0) {
        next = std::min(next, work->stopped_at + config_.cancel_grace);
      }
    }
  }
  return next;
}

void RdmaBackend::sleep_until(Deadline timer) {
  std::vector<pollfd> fds{{wake_.get(), POLLIN, 0}};
  std::vector<Nic*> nics;
  for (Nic* nic : nics_.open()) {
    if (nic->dead) continue;
    nics.push_back(nic);
    fds.push_back({nic->channel()->fd, POLLIN, 0});
    fds.push_back({nic->context()->async_fd, POLLIN, 0});
  }
  int wait_ms = -1;
  if (timer != Deadline::max()) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(timer - Clock::now()).count();
    wait_ms = int(std::clamp<int64_t>(left, 0, 60'000));
  }
  const int ready = ::poll(fds.data(), nfds_t(fds.size()), wait_ms);
  if (ready <= 0) {
    Lock lock(mutex_);
    watch_at_ = {};
    return;
  }
  if (fds[0].revents != 0) {
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t got = ::read(wake_.get(), &count, sizeof count);
  }
  for (size_t i = 0; i < nics.size(); ++i) {
    if (fds[1 + 2 * i].revents != 0 || fds[2 + 2 * i].revents != 0) take_events(*nics[i]);
    if (((fds[1 + 2 * i].revents | fds[2 + 2 * i].revents) & (POLLERR | POLLHUP | POLLNVAL)) != 0) {
      handle_event(*nics[i], verbs::kEventDeviceFatal, nullptr);  // unplugged
    }
  }
}

// Events are acknowledged at once: destroying a queue waits for that, and may happen under the mutex that
// handling them needs.
void RdmaBackend::take_events(Nic& nic) {
  verbs::Cq* cq = nullptr;
  void* user = nullptr;
  while (nic.v().get_cq_event(nic.channel(), &cq, &user) == 0) nic.v().ack_cq_events(cq, 1);
  verbs::AsyncEvent event{};
  while (nic.v().get_async_event(nic.context(), &event) == 0) {
    const void* element = event.element.qp;
    nic.v().ack_async_event(&event);
    handle_event(nic, event.event_type, element);
  }
}

void RdmaBackend::handle_event(Nic& nic, int type, const void* element) {
  Lock lock(mutex_);
  if (type == verbs::kEventDeviceFatal) nic.dead = true;
  const bool port = type == verbs::kEventPortError || type == verbs::kEventDeviceFatal;
  for (const auto& link : active_) {
    for (const auto& rail : link->rails) {
      if (&rail->nic != &nic) continue;
      const bool own = element == rail->cq || std::any_of(rail->queues.begin(), rail->queues.end(),
                                                          [&](const Queue& q) { return q.qp == element; });
      const bool broken = type == verbs::kEventCqError || type == verbs::kEventQpFatal ||
                          type == verbs::kEventQpRequest || type == verbs::kEventQpAccess;
      if (port || (own && broken)) {
        fail_rail(*link, *rail, "rdma: " + nic.name() + ": " + verbs::event_words(type));
      }
    }
    if (type == verbs::kEventPortActive) {
      for (Candidate& candidate : link->candidates) {
        if (candidate.nic == &nic) candidate.not_before = {};
      }
      link->next_attempt = {};
      review(*link);
    }
  }
}

}  // namespace mori::io::rdma
