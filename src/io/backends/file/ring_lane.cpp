// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The loop of the io_uring thread.
#include "src/io/backends/file/ring_lane.hpp"

#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <system_error>
#include <utility>

namespace mori::io::file {
namespace {

constexpr uint64_t kWakeTag = UINT64_MAX;
constexpr uint64_t kCancelTag = UINT64_MAX - 1;

uint8_t* base_of(const Job& job) { return reinterpret_cast<uint8_t*>(job.local().address); }

}  // namespace

struct RingLane::Task {
  Task(JobPtr j, uint64_t block_bytes)
      : job(std::move(j)),
        route(static_cast<FileLink&>(job->route()).shared_from_this()),
        link(static_cast<FileLink&>(*route)),
        cutter(job->segments(), job->local().address, link.rules(block_bytes)),
        sync(job->op() == Op::write && link.durable) {}
  const JobPtr job;
  const std::shared_ptr<GatedRoute> route;
  FileLink& link;
  Cutter cutter;
  bool sync;  ///< a data sync is still to be done
  bool stopped = false;
  uint32_t in_flight = 0;
  bool parked = false;  ///< one of its requests waits for its phase: no more of them
  Outcome outcome;

  void fail(Outcome why) {
    if (outcome.code == StatusCode::success) {
      why.unfinished = std::move(outcome.unfinished);
      outcome = std::move(why);
    }
    cutter.abandon(outcome.unfinished);
  }
  void unfinish(const Request& request) {
    outcome.unfinished.insert(outcome.unfinished.end(), request.pieces.begin(), request.pieces.end());
  }
};

struct RingLane::Slot {
  std::shared_ptr<Task> task;  ///< empty: free
  Request request;
  bool sync = false;
  bool bounced = false;
  bool cancelling = false;
  bool waiting = false;  ///< parked, and counted so by the file's phases
};

std::unique_ptr<RingLane> RingLane::make(const LaneOptions& options, LaneCounters& counters,
                                         std::string* why) {
  // Each request may be cancelled, and there is the eventfd.
  std::unique_ptr<Uring> ring = Uring::make(2 * options.depth + 1, why);
  if (ring == nullptr) return nullptr;
  Fd wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!wake) {
    *why = "eventfd: " + std::generic_category().message(errno);
    return nullptr;
  }
  return std::unique_ptr<RingLane>(new RingLane(options, counters, std::move(ring), std::move(wake)));
}

RingLane::RingLane(const LaneOptions& options, LaneCounters& counters, std::unique_ptr<Uring> ring, Fd wake)
    : options_(options),
      counters_(counters),
      ring_(std::move(ring)),
      wake_(std::move(wake)),
      slots_(options.depth) {
  for (uint32_t i = options.depth; i-- > 0;) free_.push_back(i);
}

RingLane::~RingLane() {
  {
    std::lock_guard<std::mutex> guard(mutex_);
    closing_ = true;
  }
  nudge();
  if (thread_.joinable()) {
    if (pid_ == getpid()) {
      thread_.join();
    } else {
      thread_.detach();  // it lives in the parent process
    }
  }
  if (bounces_ != nullptr) munmap(bounces_, options_.depth * options_.block_bytes);
}

void RingLane::nudge() { static_cast<void>(eventfd_write(wake_.get(), 1)); }

void RingLane::submit(JobPtr job) {
  auto task = std::make_shared<Task>(std::move(job), options_.block_bytes);
  bool running = true;
  {
    std::lock_guard<std::mutex> guard(mutex_);
    if (!thread_.joinable()) {
      try {
        thread_ = std::thread([this] { loop(); });
        pid_ = getpid();
      } catch (const std::system_error& error) {
        task->fail({.code = StatusCode::err_transport,
                    .message = std::string("no thread: ") + error.what(),
                    .reroutable = true});
        running = false;
      }
    }
    if (running) inbox_.push_back(task);
  }
  if (running) {
    nudge();
    return;
  }
  task->job->finish(std::move(task->outcome));
  task->route->gate.leave();
}

void RingLane::loop() {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, nullptr);
  pthread_setname_np(pthread_self(), "mori-file");
  ring_->poll_in(wake_.get(), kWakeTag);
  for (bool open = true; open || !tasks_.empty();) {
    open = take_jobs();
    look_for_stops();
    queue_parked();
    issue();
    retire();
    const bool wait = open || !tasks_.empty();
    if (const int error = ring_->enter(wait); error != 0 && error != -EINTR) {
      // The kernel is short of memory: completions are still reaped, and then it is tried again.
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    Uring::Completion completion;
    while (ring_->reap(completion)) {
      if (completion.tag == kWakeTag) {
        eventfd_t count;
        static_cast<void>(eventfd_read(wake_.get(), &count));
        until_queued([this] { return ring_->poll_in(wake_.get(), kWakeTag); });
      } else if (completion.tag != kCancelTag) {
        complete(static_cast<uint32_t>(completion.tag), completion.result);
      }
    }
    retire();
  }
}

/// False once no more jobs can come.
bool RingLane::take_jobs() {
  std::lock_guard<std::mutex> guard(mutex_);
  for (auto& task : inbox_) tasks_.push_back(std::move(task));
  inbox_.clear();
  return !closing_;
}

void RingLane::look_for_stops() {
  for (const auto& task : tasks_) {
    if (task->stopped) continue;
    const StatusCode closed = task->link.gate.why();
    if (closed == StatusCode::success && !task->job->stopping()) continue;
    task->stopped = true;
    task->fail(closed != StatusCode::success
                   ? closed_outcome(closed, {})
                   : Outcome{.code = StatusCode::err_cancelled, .message = "stopped"});
    for (uint32_t i = 0; i < slots_.size(); ++i) {
      if (slots_[i].task != task || slots_[i].cancelling || slots_[i].waiting) continue;
      slots_[i].cancelling = true;
      until_queued([&] { return ring_->cancel(i, kCancelTag); });
    }
  }
}

template <class Try>
void RingLane::until_queued(Try attempt) {
  while (!attempt()) {
    if (ring_->enter(false) != 0) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

void RingLane::issue() {
  for (const auto& task : tasks_) {
    while (!free_.empty() && !task->cutter.at_end() && !task->parked) {
      const uint32_t index = free_.back();
      free_.pop_back();
      Slot& slot = slots_[index];
      slot.task = task;
      task->cutter.next(slot.request);
      ++task->in_flight;
      Request& request = slot.request;
      slot.bounced = request.direct && !request.aligned;
      if (slot.bounced) {
        uint8_t* const block = bounce(index);
        if (block == nullptr) {
          slot.bounced = request.direct = false;
          request.point_at(base_of(*task->job));
        } else {
          request.memory.assign(1, {block, request.bytes});
          if (task->job->op() == Op::write) request.gather(block, base_of(*task->job));
          counters_.bounced.fetch_add(1, std::memory_order_relaxed);
        }
      } else {
        request.point_at(base_of(*task->job));
      }
      queue(index);
    }
    if (free_.empty()) return;
    if (task->sync && task->cutter.at_end() && task->in_flight == 0 &&
        task->outcome.code == StatusCode::success) {
      const uint32_t index = free_.back();
      free_.pop_back();
      slots_[index].task = task;
      slots_[index].sync = true;
      ++task->in_flight;
      until_queued([&] { return ring_->sync_data(task->link.buffered.get(), index); });
    }
  }
}

uint8_t* RingLane::bounce(uint32_t index) {
  if (bounces_ == nullptr) {
    const size_t bytes = options_.depth * options_.block_bytes;
    void* const base = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) return nullptr;
    bounces_ = static_cast<uint8_t*>(base);
    std::vector<iovec> all(options_.depth);
    for (uint32_t i = 0; i < options_.depth; ++i)
      all[i] = {bounces_ + i * options_.block_bytes, options_.block_bytes};
    fixed_ = ring_->register_buffers(all);  // RLIMIT_MEMLOCK may forbid it
  }
  return bounces_ + index * options_.block_bytes;
}

void RingLane::queue_parked() {
  const std::vector<uint32_t> parked = std::exchange(parked_, {});
  for (const uint32_t index : parked) slots_[index].task->parked = false;
  for (const uint32_t index : parked) {
    Slot& slot = slots_[index];
    if (!slot.task->stopped) {
      queue(index);  // which may park it again
      continue;
    }
    slot.task->link.phases->give_up(slot.request.direct, slot.waiting);
    slot.task->unfinish(slot.request);
    release(index);
  }
}

void RingLane::queue(uint32_t index) {
  Slot& slot = slots_[index];
  const Request& request = slot.request;
  Phases& phases = *slot.task->link.phases;
  if (slot.task->link.phased(slot.task->job->op()) && !phases.try_enter(request.direct, slot.waiting)) {
    parked_.push_back(index);
    slot.task->parked = true;
    return;
  }
  const bool write = slot.task->job->op() == Op::write;
  const int fd = slot.task->link.fd_for(request);
  (request.direct ? counters_.requests_direct : counters_.requests_buffered)
      .fetch_add(1, std::memory_order_relaxed);
  until_queued([&] {
    return slot.bounced && fixed_ ? ring_->transfer_fixed(write, fd, request.offset, request.memory[0],
                                                          static_cast<uint16_t>(index), index)
                                  : ring_->transfer(write, fd, request.offset, request.memory, index);
  });
}

void RingLane::complete(uint32_t index, int32_t result) {
  Slot& slot = slots_[index];
  Task& task = *slot.task;
  if (slot.sync) {
    if (result < 0) task.fail(io_failure(task.job->remote(), Op::write, 0, -result));
    if (result < 0) task.outcome.unfinished = all_segments(*task.job);
    task.sync = false;
    release(index);
    return;
  }
  Request& request = slot.request;
  const Op op = task.job->op();
  if (task.link.phased(op)) task.link.phases->leave(request.direct);
  if (options_.filter != nullptr) result = options_.filter(op == Op::write, request.direct, result);
  if (result == static_cast<int64_t>(request.bytes)) {
    if (slot.bounced && op == Op::read) {
      request.scatter(static_cast<const uint8_t*>(request.memory[0].iov_base), base_of(*task.job));
    }
    task.job->progressed(request.bytes);
    release(index);
    return;
  }
  const bool again = result > 0 || result == -EINTR || result == -EAGAIN || result == -ECANCELED ||
                     (request.direct && refuses_direct(-result));
  if (again && !task.stopped) {
    if (request.direct && refuses_direct(-result)) task.link.direct_works = false;
    // What arrived through a bounce buffer is read again: simpler than scattering part of it, and rare.
    request.drop_front(result > 0 && !slot.bounced ? static_cast<uint64_t>(result) : 0);
    slot.bounced = false;
    request.point_at(base_of(*task.job));
    counters_.resumed.fetch_add(1, std::memory_order_relaxed);
    queue(index);
    return;
  }
  task.unfinish(request);
  if (result <= 0 && !task.stopped) task.fail(io_failure(task.job->remote(), op, request.offset, -result));
  release(index);
}

void RingLane::release(uint32_t index) {
  Slot& slot = slots_[index];
  --slot.task->in_flight;
  slot.task.reset();
  slot.sync = slot.bounced = slot.cancelling = false;
  free_.push_back(index);
}

void RingLane::retire() {
  for (size_t i = 0; i < tasks_.size();) {
    const std::shared_ptr<Task> task = tasks_[i];
    const bool failed = task->outcome.code != StatusCode::success;
    if (!task->cutter.at_end() || task->in_flight > 0 || (task->sync && !failed)) {
      ++i;
      continue;
    }
    tasks_.erase(tasks_.begin() + static_cast<ptrdiff_t>(i));
    if (task->stopped && !task->sync && task->outcome.unfinished.empty())
      task->outcome = {};  // it came too late
    task->job->finish(std::move(task->outcome));
    task->route->gate.leave();
  }
}

}  // namespace mori::io::file
