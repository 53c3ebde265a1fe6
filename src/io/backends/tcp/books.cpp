// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/backends/tcp/books.hpp"

namespace mori::io::tcp {

void Books::file(const WorkPtr& work) {
  if (work->done) return;
  const bool has_more = work->left.bytes > 0 || !work->again.empty();
  if (has_more && !work->queued) {
    work->queued = true;
    waiting_.push_back(work);
  }
  if (!has_more && work->in_flight == 0) {
    work->done = true;
    all_.erase(work->job.get());
    done_.push_back(work);
  }
  waiting_count_.store(waiting_.size(), std::memory_order_relaxed);
  count_.store(all_.size() + done_.size(), std::memory_order_relaxed);
  done_count_.store(done_.size(), std::memory_order_release);
}

void Books::add(const WorkPtr& work) {
  std::lock_guard lock(mutex_);
  work->left = {0, 0, work->job->bytes()};
  all_[work->job.get()] = work;
  file(work);
}

bool Books::take(size_t streams, Frame& frame, Request& request) {
  if (!waiting()) return false;
  std::lock_guard lock(mutex_);
  while (!waiting_.empty()) {
    const WorkPtr work = waiting_.front();
    if (work->left.bytes == 0 && work->again.empty()) {
      work->queued = false;
      waiting_.pop_front();
      waiting_count_.store(waiting_.size(), std::memory_order_relaxed);
      continue;
    }
    Range& from = work->again.empty() ? work->left : work->again.front();
    const uint64_t share = work->job->bytes() / (2 * streams);
    const uint64_t most = std::clamp(share, kLeastFrameBytes, kMostFrameBytes);
    frame.work = work;
    frame.range = {from.segment, from.skip, 0};
    request.segments.clear();
    request.uniform = true;
    while (from.bytes > 0 && frame.range.bytes < most && request.segments.size() < kMaxPieces) {
      const Segment& segment = work->segments[from.segment];
      const uint64_t piece = std::min({segment.bytes - from.skip, from.bytes, most - frame.range.bytes});
      request.segments.push_back({0, segment.remote + from.skip, piece});
      request.uniform = request.uniform && piece == request.segments.front().bytes;
      frame.range.bytes += piece;
      from.bytes -= piece;
      from.skip += piece;
      if (from.skip == segment.bytes) {
        ++from.segment;
        from.skip = 0;
      }
    }
    if (from.bytes == 0 && &from != &work->left) work->again.pop_front();
    if (work->left.bytes == 0 && work->again.empty()) {
      work->queued = false;
      waiting_.pop_front();
      waiting_count_.store(waiting_.size(), std::memory_order_relaxed);
    }
    frame.cursor = Cursor(work->segments, &Segment::local, frame.range);
    ++work->in_flight;
    const RemoteRegion& remote = work->job->remote();
    request.op = work->op;
    request.pieces = static_cast<uint32_t>(request.segments.size());
    request.region = remote.id;
    request.key = remote.key;
    request.bytes = frame.range.bytes;
    request.uniform_bytes = request.uniform ? request.segments.front().bytes : 0;
    return true;
  }
  return false;
}

void Books::confirm(Frame& frame) {
  const WorkPtr work = std::move(frame.work);
  if (!work) return;
  if (work->job->bytes() >= (1 << 20)) work->job->progressed(frame.range.bytes);
  std::lock_guard lock(mutex_);
  --work->in_flight;
  file(work);
}

void Books::refuse(Frame& frame, StatusCode code, const std::string& words) {
  const WorkPtr work = std::move(frame.work);
  if (!work) return;
  std::lock_guard lock(mutex_);
  --work->in_flight;
  work->unfinished.push_back(frame.range);
  stop_locked(work, code, words, false);
  file(work);
}

void Books::give_back(Frame& frame, Deadline settled) {
  const WorkPtr work = std::move(frame.work);
  if (!work) return;
  std::lock_guard lock(mutex_);
  --work->in_flight;
  if (work->op == Op::write) work->settled = std::max(work->settled, settled);
  if (work->stopping)
    work->unfinished.push_back(frame.range);
  else
    work->again.push_back(frame.range);
  file(work);
}

void Books::orphan(Frame& frame) {
  frame.discard = frame.cursor.left();
  frame.cursor = {};
  const WorkPtr work = std::move(frame.work);
  if (!work) return;
  std::lock_guard lock(mutex_);
  --work->in_flight;
  work->unfinished.push_back(frame.range);
  file(work);
}

void Books::stop_locked(const WorkPtr& owned, StatusCode code, const std::string& words, bool reroutable) {
  Work& work = *owned;
  if (work.stopping) return;
  work.stopping = true;
  work.outcome.code = code;
  work.outcome.message = words;
  work.outcome.reroutable = reroutable;
  if (work.left.bytes > 0) work.unfinished.push_back(work.left);
  work.left.bytes = 0;
  work.unfinished.insert(work.unfinished.end(), work.again.begin(), work.again.end());
  work.again.clear();
}

void Books::stop(const WorkPtr& work, StatusCode code, const std::string& words, bool reroutable) {
  std::lock_guard lock(mutex_);
  if (work->done) return;  // what is whole stays a success
  stop_locked(work, code, words, reroutable);
  file(work);
}

void Books::stop_all(StatusCode code, const std::string& words, bool reroutable) {
  for (const WorkPtr& work : all()) stop(work, code, words, reroutable);
}

std::vector<WorkPtr> Books::all() const {
  std::lock_guard lock(mutex_);
  std::vector<WorkPtr> works;
  for (const auto& [job, work] : all_) works.push_back(work);
  return works;
}

WorkPtr Books::find(const Job& job) const {
  std::lock_guard lock(mutex_);
  const auto found = all_.find(&job);
  return found == all_.end() ? nullptr : found->second;
}

std::vector<WorkPtr> Books::take_finished(Deadline now, Deadline& next) {
  std::vector<WorkPtr> finished;
  std::lock_guard lock(mutex_);
  std::erase_if(done_, [&](WorkPtr& work) {
    // All bytes of a stopped job may have been confirmed after all: then it is whole.
    if (work->stopping && work->unfinished.empty()) work->outcome = {};
    if (!work->unfinished.empty() && work->settled > now) {
      next = std::min(next, work->settled);
      return false;
    }
    finished.push_back(work);
    return true;
  });
  count_.store(all_.size() + done_.size(), std::memory_order_relaxed);
  done_count_.store(done_.size(), std::memory_order_release);
  return finished;
}

void finish(const std::vector<WorkPtr>& works) {
  for (const WorkPtr& work : works) {
    for (Range range : work->unfinished) {
      while (range.bytes > 0) {
        const Segment& segment = work->segments[range.segment];
        const uint64_t piece = std::min(segment.bytes - range.skip, range.bytes);
        work->outcome.unfinished.push_back({segment.local + range.skip, segment.remote + range.skip, piece});
        range = {range.segment + 1, 0, range.bytes - piece};
      }
    }
    work->job->finish(std::move(work->outcome));
    work->over.store(true, std::memory_order_release);
  }
}

}  // namespace mori::io::tcp
