// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The initiator's books for one peer: which bytes of which job are waiting, on a stream, confirmed or to be
// sent again. Moves no bytes. A job is cut into frames when a stream has room, so that fast streams take
// more.
//
//   waiting (Work::left, Work::again) -> on a stream (Work::in_flight) -> confirmed
//                                        stream broke: back to `again`; job stopping: to `unfinished`
//
// A work is over when nothing of it waits or is on a stream; then take_finished() hands it out, once. Every
// call may come from any thread; nothing is called with the mutex held.
#pragma once
#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "src/io/backend.hpp"
#include "src/io/backends/tcp/cursor.hpp"
#include "src/io/backends/tcp/frames.hpp"

namespace mori::io::tcp {

constexpr uint64_t kLeastFrameBytes = 256 << 10, kMostFrameBytes = 4 << 20;

struct Work {
  explicit Work(JobPtr owned) : job(std::move(owned)), op(job->op()), segments(job->segments()) {}
  const JobPtr job;
  const Op op;
  const std::span<const Segment> segments;

  // with the books' mutex
  Range left;                          ///< never yet on a stream
  std::deque<Range> again;             ///< was on a stream that broke
  int in_flight = 0;                   ///< frames on streams
  bool stopping = false;               ///< no further frame goes out
  bool queued = false;                 ///< in Books::waiting_
  bool done = false;                   ///< in Books::done_
  Deadline settled = Deadline::min();  ///< not over before: a cut stream's bytes may still be on their way
  Outcome outcome;
  std::vector<Range> unfinished;

  std::atomic<bool> over{false};  ///< finish() has returned
};
using WorkPtr = std::shared_ptr<Work>;

/// A piece of a work on its way over one stream.
struct Frame {
  WorkPtr work;  ///< null: nobody wants it any more, its payload is thrown away
  Range range;
  uint64_t number = 0;
  bool is_read = false;
  std::string head;  ///< the encoded request
  size_t head_sent = 0;
  Cursor cursor;         ///< of the payload: what is still to be sent, or received
  uint64_t discard = 0;  ///< without a work: bytes of payload to throw away
};

class Books {
 public:
  void add(const WorkPtr& work);
  /// The next piece for a stream, without its head. False: nothing waits.
  bool take(size_t streams, Frame& frame, Request& request);
  bool waiting() const { return waiting_count_.load(std::memory_order_relaxed) > 0; }
  /// Something for take_finished(), now or later.
  bool over_soon() const { return done_count_.load(std::memory_order_acquire) > 0; }
  bool idle() const { return count_.load(std::memory_order_relaxed) == 0; }

  void confirm(Frame& frame);
  void refuse(Frame& frame, StatusCode code, const std::string& words);
  /// Its stream broke before it was confirmed. `settled`: when the owner surely writes nothing of it any
  /// more.
  void give_back(Frame& frame, Deadline settled);
  /// Nobody waits for this frame (its memory is local and untouched from here on).
  void orphan(Frame& frame);

  /// Lets no further frame of it go out. The first reason stays.
  void stop(const WorkPtr& work, StatusCode code, const std::string& words, bool reroutable);
  /// The same for all works.
  void stop_all(StatusCode code, const std::string& words, bool reroutable);
  std::vector<WorkPtr> all() const;
  WorkPtr find(const Job& job) const;  ///< null: over, or never added

  /// Works that are over, each once; the caller calls Job::finish. `next` becomes the time when another one
  /// may be.
  std::vector<WorkPtr> take_finished(Deadline now, Deadline& next);

 private:
  void stop_locked(const WorkPtr& work, StatusCode code, const std::string& words, bool reroutable);
  /// After each change: puts it where it belongs.
  void file(const WorkPtr& work);
  mutable std::mutex mutex_;
  std::deque<WorkPtr> waiting_;  ///< with bytes for a stream, oldest first; may hold stopped ones
  std::unordered_map<const Job*, WorkPtr> all_;  ///< not done
  std::vector<WorkPtr> done_;                    ///< to be handed out, some only when settled
  std::atomic<size_t> waiting_count_{0}, count_{0}, done_count_{0};
};

/// Tells the job; no lock may be held.
void finish(const std::vector<WorkPtr>& works);

}  // namespace mori::io::tcp
