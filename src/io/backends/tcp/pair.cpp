// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/backends/tcp/pair.hpp"

#include <poll.h>
#include <sched.h>

#include <thread>

#include "src/io/errors.hpp"

namespace mori::io::tcp {
namespace {

constexpr uint64_t kInlineBytes = 256 << 10;  ///< what a submitter moves before it returns
constexpr uint64_t kTurnBytes = 4 << 20;      ///< what others move before they look at the next stream
constexpr std::chrono::microseconds kHelp{1000};
constexpr std::chrono::milliseconds kBackoff{10};

}  // namespace

Pair::Outlets Pair::outlets() const {
  std::lock_guard lock(mutex_);
  return outlets_;
}

void Pair::open(Deadline deadline) {
  {
    std::unique_lock lock(mutex_);
    const auto free = [&] { return !is_opening_; };
    if (deadline == Deadline::max())
      opened_.wait(lock, free);
    else if (!opened_.wait_until(lock, deadline, free))
      throw TimeoutError("streams to engine '" + peer_.load()->engine() +
                         "' were not open before the deadline");
    is_opening_ = true;
  }
  const auto over = [this] {
    std::lock_guard lock(mutex_);
    is_opening_ = false;
    opened_.notify_one();
  };
  try {
    open_missing(deadline);
  } catch (...) {
    over();
    throw;
  }
  over();
}

void Pair::open_missing(Deadline deadline) {
  for (size_t i = 0; i < settings_.streams; ++i) {
    {
      const Outlets all = outlets();
      if (all[i]) {
        std::lock_guard lock(all[i]->mutex);
        if (!all[i]->broken()) continue;
      }
    }
    Stream stream = peer_.load()->open_stream("tcp", deadline);
    auto outlet = std::make_shared<Outlet>(std::move(stream), weak_from_this(), books_, loop_, counters_,
                                           settings_.streams);
    ++counters_.streams_opened;
    {
      std::lock_guard outlet_lock(outlet->mutex);
      outlet->enter(outlet);
    }
    std::lock_guard lock(mutex_);
    outlets_[i] = std::move(outlet);
  }
}

void Pair::submit(const JobPtr& job) {
  const auto work = std::make_shared<Work>(job);
  books_.add(work);
  if (job->stopping()) stop(work, StatusCode::err_cancelled, "cancelled");
  const Outlets all = outlets();
  // An idle stream is driven here, so that a small job leaves without a change of threads.
  for (const auto& outlet : all) {
    if (!outlet || !books_.waiting()) break;
    std::unique_lock lock(outlet->mutex, std::try_to_lock);
    if (!lock || outlet->broken() || !outlet->idle()) continue;
    drive(*outlet, std::move(lock), kInlineBytes);
    break;
  }
  bool usable = false;
  for (const auto& outlet : all) {
    if (!outlet) break;
    std::lock_guard lock(outlet->mutex);
    usable = usable || !outlet->broken();
    if (helpers_.load() == 0) outlet->arm();
  }
  if (!usable) reopen();
  if (books_.over_soon()) finish_ready();
}

bool Pair::drive(Outlet& outlet, std::unique_lock<std::mutex> lock, uint64_t budget) {
  const bool was_broken = outlet.broken();
  const bool progress = outlet.drive(budget);
  const bool broke_now = outlet.broken() && !was_broken;
  if (outlet.used()) failures_ = 0;
  lock.unlock();
  if (broke_now) broke(outlet);
  if (progress) finish_ready();
  return progress;
}

void Pair::finish_ready() {
  if (!books_.over_soon()) return;
  Deadline next = Deadline::max();
  finish(books_.take_finished(Clock::now(), next));
  if (next != Deadline::max())
    loop_.at(next, [weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->finish_ready();
    });
}

bool Pair::help(const WorkPtr& work) {
  const auto until = Clock::now() + kHelp;
  const Outlets all = outlets();
  helpers_.fetch_add(1);
  for (const auto& outlet : all) {
    if (!outlet) break;
    std::unique_lock lock(outlet->mutex, std::try_to_lock);
    if (lock) outlet->disarm();
  }
  auto spin_until = Clock::now() + kSpin;
  while (!work->over.load(std::memory_order_acquire)) {
    bool progress = false;
    for (const auto& outlet : all) {
      if (!outlet) break;
      std::unique_lock lock(outlet->mutex, std::try_to_lock);
      if (lock && !outlet->broken()) progress = drive(*outlet, std::move(lock), kTurnBytes) || progress;
      if (work->over.load(std::memory_order_acquire)) break;
    }
    const auto time = Clock::now();
    if (progress) {
      spin_until = time + kSpin;
    } else if (time < spin_until) {
      ::sched_yield();  // the peer may need this very core to go on
    } else {
      pollfd waiting[kMaxStreams];
      nfds_t count = 0;
      for (const auto& outlet : all) {
        if (!outlet) break;
        std::unique_lock lock(outlet->mutex, std::try_to_lock);
        if (!lock) continue;
        if (const short events = outlet->waits_for()) waiting[count++] = {outlet->fd(), events, 0};
      }
      ::poll(waiting, count, 1);
    }
    if (time >= until) break;
  }
  if (helpers_.fetch_sub(1) == 1 && !books_.idle()) {
    for (const auto& outlet : outlets()) {
      if (!outlet) break;
      std::lock_guard lock(outlet->mutex);
      outlet->arm();
    }
  }
  return true;
}

void Pair::on_ready(Outlet& outlet) {
  std::unique_lock lock(outlet.mutex);
  outlet.forget_armed();
  // A waiting caller drives the streams; the last one to leave arms them again.
  if (helpers_.load() > 0) return;
  drive(outlet, std::move(lock), kTurnBytes);
  std::lock_guard again(outlet.mutex);
  if (helpers_.load() == 0) outlet.arm();
}

void Pair::check_stopping() {
  for (const WorkPtr& work : books_.all())
    if (work->job->stopping()) stop(work, StatusCode::err_cancelled, "cancelled");
}

void Pair::stop(const WorkPtr& work, StatusCode code, const std::string& words) {
  books_.stop(work, code, words, false);
  bool on_its_way = false;
  for (const auto& outlet : outlets()) {
    if (!outlet) break;
    std::lock_guard lock(outlet->mutex);
    outlet->orphan_reads(*work);
    on_its_way = on_its_way || outlet->holds(*work);
  }
  if (on_its_way)
    loop_.at(Clock::now() + settings_.grace, [weak = weak_from_this(), work] {
      if (const auto self = weak.lock()) self->cut_overdue(work);
    });
  finish_ready();
}

void Pair::cut_overdue(const WorkPtr& work) {
  for (const auto& outlet : outlets()) {
    if (!outlet) break;
    std::unique_lock lock(outlet->mutex);
    if (!outlet->holds(*work)) continue;
    outlet->cut("a stopped transfer was not confirmed in time");
    lock.unlock();
    broke(*outlet);
  }
  finish_ready();
}

void Pair::revoke(const Route& route) {
  std::vector<WorkPtr> its;
  for (const WorkPtr& work : books_.all())
    if (&work->job->route() == &route) its.push_back(work);
  for (const WorkPtr& work : its) stop(work, StatusCode::err_not_found, "the memory was deregistered");
  // Over at the latest when the grace has passed and the cut has settled.
  for (const WorkPtr& work : its)
    while (!work->over.load(std::memory_order_acquire))
      std::this_thread::sleep_for(std::chrono::microseconds(200));
}

void Pair::lost(const std::string& reason) {
  books_.stop_all(StatusCode::err_peer_lost, "lost engine '" + peer_.load()->engine() + "': " + reason,
                  false);
  for (const auto& outlet : outlets()) {
    if (!outlet) break;
    std::lock_guard lock(outlet->mutex);
    outlet->cut("the control connection broke");
  }
  finish_ready();
}

void Pair::broke(const Outlet& outlet) {
  if (!outlet.used() && failures_.fetch_add(1) + 1 > settings_.retries)
    books_.stop_all(StatusCode::err_transport,
                    "streams to engine '" + peer_.load()->engine() + "' break: " + outlet.reason(), true);
  finish_ready();
  if (books_.waiting()) reopen();
}

void Pair::reopen() {
  if (opening_.exchange(true)) return;
  const bool taken = worker_.post([weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->try_open(0);
  });
  if (!taken) opening_ = false;
}

void Pair::try_open(int attempt) {
  for (;; ++attempt) {
    try {
      open(Clock::now() + settings_.connect);
      break;
    } catch (const PeerLost& error) {
      books_.stop_all(StatusCode::err_peer_lost, error.what(), false);
      break;
    } catch (const std::exception& error) {
      if (attempt >= settings_.retries) {
        books_.stop_all(StatusCode::err_transport, error.what(), true);
        break;
      }
      std::this_thread::sleep_for(kBackoff * (1 << (2 * attempt)));
    }
  }
  opening_ = false;
  finish_ready();
  if (!books_.waiting()) return;
  bool usable = false;
  for (const auto& outlet : outlets()) {
    if (!outlet) break;
    std::lock_guard lock(outlet->mutex);
    usable = usable || !outlet->broken();
    outlet->arm();
  }
  if (!usable) reopen();
}

}  // namespace mori::io::tcp
