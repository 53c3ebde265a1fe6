// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// For backends whose threads move the bytes themselves: a job is cut in pieces, and whoever is there claims
// them one after another. That is the submitter for small jobs (run()), else a few threads that start with
// the first queued job and sleep when there is none, and every thread that waits for the job (help()).
//
//   submit() -> queue -> worker:  claim, carry, claim, carry ...   } whoever carries the last piece
//               help() of a waiter:  claim, carry, claim ...       } calls Job::finish()
//
// Before each piece stopping() of the job and the gate of its route are looked at, so a piece is how long a
// cancelled job can still write. No lock is held while bytes move.
#pragma once
#include <sched.h>
#include <sys/types.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "src/io/backend.hpp"

namespace mori::io {

/// Counts the jobs that use a route, so that closing it can wait until none does.
class Gate {
 public:
  /// False once closed; else the caller leave()s when its job is finished.
  bool enter();
  void leave();
  /// No job gets in any more, and those inside end at their next piece. The first reason stays.
  void close(StatusCode why);
  /// After close(): returns when nobody is inside.
  void drain();
  bool closed() const { return why() != StatusCode::success; }
  StatusCode why() const { return static_cast<StatusCode>(why_.load()); }

 private:
  std::atomic<int32_t> inside_{0};
  std::atomic<int32_t> why_{0};  ///< a StatusCode; success = open
};

class GatedRoute : public Route, public std::enable_shared_from_this<GatedRoute> {
 public:
  Gate gate;
};

/// What a job that meets a closed gate ends with.
Outcome closed_outcome(StatusCode why, std::vector<Segment> unfinished);
/// All of a job's segments, for outcomes of jobs that were not begun.
std::vector<Segment> all_segments(const Job& job);

class Crew {
 public:
  /// How much is claimed at once.
  struct Piece {
    size_t segments;
    uint64_t bytes;  ///< a multiple of 4096
  };
  /// Carries these segments of the job: success, or what failed and which of them are unfinished.
  using Carry = std::function<Outcome(Job&, std::span<const Segment>)>;

  /// `threads` is how many may work beside the waiters.
  Crew(std::string name, size_t threads, Carry carry);
  ~Crew();  ///< every job is finished before
  Crew(const Crew&) = delete;
  Crew& operator=(const Crew&) = delete;

  // The job's route is a GatedRoute whose gate the caller entered; both leave it after finish(). No throw.
  void run(Job& job, Piece piece);
  void submit(JobPtr job, Piece piece);
  /// Carries pieces for about a millisecond. False: none was left to claim.
  bool help(Job& job);

 private:
  struct Task;
  bool work(Task& task, Deadline until);  ///< whether it carried or ended anything
  void finish(Task& task);
  void loop();
  void start_thread();
  void wake_elsewhere();

  const std::string name_;
  const size_t threads_wanted_;
  const Carry carry_;
  std::mutex mutex_;  ///< of what follows
  std::condition_variable wake_;
  std::deque<std::shared_ptr<Task>> queue_;  ///< tasks with pieces left
  std::unordered_map<const Job*, std::shared_ptr<Task>> tasks_;
  std::vector<std::thread> threads_;
  size_t idle_ = 0;
  bool sent_away_ = false;  ///< the threads may not run on all of allowed_
  cpu_set_t allowed_{};
  pid_t pid_ = 0;  ///< that started the threads: a forked child has none of them
  bool closing_ = false;
};

}  // namespace mori::io
