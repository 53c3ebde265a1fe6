// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Claiming and carrying pieces.
#include "src/io/backends/crew.hpp"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <system_error>
#include <utility>

namespace mori::io {

bool Gate::enter() {
  inside_.fetch_add(1);  // sequentially consistent, as close(): one of the two sees the other
  if (!closed()) return true;
  leave();
  return false;
}

void Gate::leave() {
  if (inside_.fetch_sub(1) == 1 && closed()) inside_.notify_all();
}

void Gate::close(StatusCode why) {
  int32_t open = 0;
  why_.compare_exchange_strong(open, static_cast<int32_t>(why));
}

void Gate::drain() {
  for (int32_t inside = inside_.load(); inside != 0; inside = inside_.load()) inside_.wait(inside);
}

Outcome closed_outcome(StatusCode why, std::vector<Segment> unfinished) {
  const char* words =
      why == StatusCode::err_peer_lost ? "the peer is gone" : "the peer's memory was deregistered";
  return {.code = why, .message = words, .reroutable = false, .unfinished = std::move(unfinished)};
}

std::vector<Segment> all_segments(const Job& job) { return {job.segments().begin(), job.segments().end()}; }

namespace {

constexpr std::chrono::milliseconds kHelp{1};  // then the waiter looks at its own deadline

/// Takes pieces off a list of segments, front to back.
class Cursor {
 public:
  explicit Cursor(std::span<const Segment> segments) : segments_(segments) {}
  bool at_end() const { return next_ == segments_.size(); }

  /// Puts the next piece into `out`, which is emptied first; returns its bytes.
  uint64_t take(Crew::Piece limit, std::vector<Segment>& out) {
    out.clear();
    uint64_t bytes = 0;
    while (!at_end() && out.size() < limit.segments && bytes < limit.bytes) {
      const Segment& whole = segments_[next_];
      const uint64_t left = whole.bytes - offset_;
      uint64_t part = std::min(left, limit.bytes - bytes);
      if (part < left && part > kPage) part -= (whole.remote + offset_ + part) % kPage;  // cut between pages
      out.push_back({whole.local + offset_, whole.remote + offset_, part});
      bytes += part;
      offset_ += part;
      if (offset_ == whole.bytes) {
        ++next_;
        offset_ = 0;
      } else {
        break;  // the piece is full, but for less than a page
      }
    }
    return bytes;
  }

 private:
  static constexpr uint64_t kPage = 4096;
  std::span<const Segment> segments_;
  size_t next_ = 0;
  uint64_t offset_ = 0;  ///< into segments_[next_]
};

/// A stop that the caller or the route asked for, or success.
Outcome stop_of(const Job& job, const Gate& gate) {
  if (gate.closed()) return closed_outcome(gate.why(), {});
  if (job.stopping()) return {.code = StatusCode::err_cancelled, .message = "stopped"};
  return {};
}

/// What failed first is what is told; what is unfinished adds up.
void merge(Outcome& into, Outcome&& part) {
  if (part.code == StatusCode::success) return;
  std::ranges::copy(part.unfinished, std::back_inserter(into.unfinished));
  if (into.code != StatusCode::success) return;
  part.unfinished = std::move(into.unfinished);
  into = std::move(part);
}

/// A worker must outlive whatever a carrier throws (memory exhausted), and the job must end.
Outcome carry_safely(const Crew::Carry& carry, Job& job, std::span<const Segment> piece) {
  try {
    return carry(job, piece);
  } catch (const std::exception& error) {
    return {.code = StatusCode::err_transport,
            .message = error.what(),
            .reroutable = true,
            .unfinished = {piece.begin(), piece.end()}};
  }
}

void block_signals() {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, nullptr);
}

}  // namespace

struct Crew::Task {
  Task(JobPtr j, Piece p)
      : job(std::move(j)),
        route(static_cast<GatedRoute&>(job->route()).shared_from_this()),
        piece(p),
        cursor(job->segments()) {}
  const JobPtr job;
  const std::shared_ptr<GatedRoute> route;  ///< outlives the leave() after finish()
  const Piece piece;
  std::mutex mutex;  ///< of what follows
  Cursor cursor;
  size_t carrying = 0;  ///< pieces in somebody's hands
  bool finished = false;
  Outcome outcome;

  void abandon() {
    std::vector<Segment> rest;
    while (!cursor.at_end()) {
      cursor.take({SIZE_MAX, UINT64_MAX}, rest);
      std::ranges::copy(rest, std::back_inserter(outcome.unfinished));
    }
  }
};

Crew::Crew(std::string name, size_t threads, Carry carry)
    : name_(std::move(name)), threads_wanted_(threads), carry_(std::move(carry)) {}

Crew::~Crew() {
  {
    std::lock_guard<std::mutex> guard(mutex_);
    closing_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) {
    if (pid_ == getpid()) {
      thread.join();
    } else {
      thread.detach();  // it lives in the parent process
    }
  }
}

void Crew::run(Job& job, Piece piece) {
  const auto route = static_cast<GatedRoute&>(job.route()).shared_from_this();
  const std::span<const Segment> segments = job.segments();
  Outcome outcome;
  if (segments.size() <= piece.segments && job.bytes() <= piece.bytes) {
    outcome = stop_of(job, route->gate);
    if (outcome.code == StatusCode::success) {
      outcome = carry_safely(carry_, job, segments);
    } else {
      outcome.unfinished = all_segments(job);
    }
  } else {
    Cursor cursor(segments);
    std::vector<Segment> part;
    while (!cursor.at_end() && outcome.code == StatusCode::success) {
      outcome = stop_of(job, route->gate);
      if (outcome.code != StatusCode::success) break;
      cursor.take(piece, part);
      outcome = carry_safely(carry_, job, part);
    }
    while (!cursor.at_end()) {
      cursor.take({SIZE_MAX, UINT64_MAX}, part);
      std::ranges::copy(part, std::back_inserter(outcome.unfinished));
    }
  }
  job.finish(std::move(outcome));
  route->gate.leave();
}

void Crew::submit(JobPtr job, Piece piece) {
  auto task = std::make_shared<Task>(std::move(job), piece);
  bool alone = false;
  const bool large = task->job->bytes() > piece.bytes;
  const size_t wanted = large ? threads_wanted_ : 1;
  {
    std::lock_guard<std::mutex> guard(mutex_);
    try {
      while (idle_ < wanted && threads_.size() < threads_wanted_) start_thread();
    } catch (const std::system_error&) {  // the process may have no more threads
    }
    if (large && queue_.empty()) wake_elsewhere();
    alone = threads_.empty();
    tasks_.emplace(task->job.get(), task);
    if (!alone) queue_.push_back(task);
  }
  wake_.notify_all();
  if (alone) work(*task, Deadline::max());
}

void Crew::start_thread() {
  pid_ = getpid();
  threads_.emplace_back([this] {
    block_signals();
    pthread_setname_np(pthread_self(), name_.substr(0, 15).c_str());
    loop();
  });
  ++idle_;  // it will be, and who submits next counts on it
}

// Schedulers like to wake a thread on the processor of who wakes it. There it would wait until the submitter,
// who as a rule carries pieces too, has used up its time slice: the whole job would be carried by one
// processor. Once awake it may go anywhere again.
void Crew::wake_elsewhere() {
  const int cpu = sched_getcpu();
  if (cpu < 0 || sched_getaffinity(0, sizeof allowed_, &allowed_) != 0)
    return;  // or a cpu_set_t is too small
  cpu_set_t others = allowed_;
  CPU_CLR(cpu, &others);
  if (CPU_COUNT(&others) == 0) return;
  for (std::thread& thread : threads_) pthread_setaffinity_np(thread.native_handle(), sizeof others, &others);
  sent_away_ = true;
}

void Crew::loop() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return closing_ || !queue_.empty(); });
    if (closing_) return;
    --idle_;
    if (std::exchange(sent_away_, false)) {
      for (std::thread& thread : threads_)
        pthread_setaffinity_np(thread.native_handle(), sizeof allowed_, &allowed_);
    }
    const std::shared_ptr<Task> task = queue_.front();
    lock.unlock();
    work(*task, Deadline::max());
    lock.lock();
    ++idle_;
    std::erase(queue_, task);  // work() returns when no piece is left to claim
  }
}

bool Crew::help(Job& job) {
  std::shared_ptr<Task> task;
  {
    std::lock_guard<std::mutex> guard(mutex_);
    const auto found = tasks_.find(&job);
    if (found == tasks_.end()) return false;
    task = found->second;
  }
  return work(*task, Clock::now() + kHelp);
}

bool Crew::work(Task& task, Deadline until) {
  std::vector<Segment> piece;
  for (bool carried = false;; carried = true) {
    uint64_t bytes = 0;
    {
      std::lock_guard<std::mutex> guard(task.mutex);
      if (task.finished || task.cursor.at_end()) return carried;
      if (carried && until != Deadline::max() && Clock::now() >= until) return true;
      Outcome stop = stop_of(*task.job, task.route->gate);
      if (stop.code != StatusCode::success) {
        merge(task.outcome, std::move(stop));
        task.abandon();
        if (task.carrying > 0) return true;
        task.finished = true;
      } else {
        bytes = task.cursor.take(task.piece, piece);
        ++task.carrying;
      }
    }
    if (bytes > 0) {
      Outcome part = carry_safely(carry_, *task.job, piece);
      if (part.code == StatusCode::success) task.job->progressed(bytes);
      std::lock_guard<std::mutex> guard(task.mutex);
      --task.carrying;
      if (part.code != StatusCode::success) {
        merge(task.outcome, std::move(part));
        task.abandon();
      }
      if (!task.cursor.at_end() || task.carrying > 0) continue;
      task.finished = true;
    }
    finish(task);
    return true;
  }
}

void Crew::finish(Task& task) {
  {
    std::lock_guard<std::mutex> guard(mutex_);
    tasks_.erase(task.job.get());
    std::erase_if(queue_, [&](const auto& other) { return other.get() == &task; });
  }
  task.job->finish(std::move(task.outcome));
  task.route->gate.leave();
}

}  // namespace mori::io
