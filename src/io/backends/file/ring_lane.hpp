// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Jobs over io_uring: one thread keeps `depth` requests in flight and sleeps in the kernel; an eventfd in the
// ring wakes it for what comes from outside (a job, a stop, the end).
//
//   submit() -> inbox -> tasks --next()--> slot --enter()--> kernel --completion--> slot free
// A task finishes when all is cut, nothing is in flight, and (durable writes) the last request, a data sync,
// is through.
#pragma once
#include <sys/types.h>

#include <atomic>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "src/io/backends/file/file_link.hpp"
#include "src/io/backends/file/uring.hpp"

namespace mori::io::file {

/// What a system call gave, possibly changed by a test.
using ResultFilter = int32_t (*)(bool write, bool direct, int32_t result);

struct LaneOptions {
  uint32_t depth = 32;
  uint64_t block_bytes = 1u << 20;  ///< a multiple of 4096
  ResultFilter filter = nullptr;
};

struct LaneCounters {
  std::atomic<uint64_t> requests_direct{0}, requests_buffered{0}, bounced{0}, resumed{0};
};

class RingLane {
 public:
  static std::unique_ptr<RingLane> make(const LaneOptions& options, LaneCounters& counters, std::string* why);
  ~RingLane();  ///< every job is finished before
  RingLane(const RingLane&) = delete;
  RingLane& operator=(const RingLane&) = delete;

  /// The gate of the job's route was entered; it is left after finish().
  void submit(JobPtr job);
  void nudge();

 private:
  struct Task;
  struct Slot;
  RingLane(const LaneOptions& options, LaneCounters& counters, std::unique_ptr<Uring> ring, Fd wake);
  void loop();
  bool take_jobs();
  void look_for_stops();
  void issue();
  void queue(uint32_t index);
  void queue_parked();
  void complete(uint32_t index, int32_t result);
  void release(uint32_t index);
  void retire();
  uint8_t* bounce(uint32_t index);
  template <class Try>
  void until_queued(Try attempt);

  const LaneOptions options_;
  LaneCounters& counters_;
  const std::unique_ptr<Uring> ring_;
  const Fd wake_;

  std::mutex mutex_;  ///< of what follows
  std::vector<std::shared_ptr<Task>> inbox_;
  bool closing_ = false;
  std::thread thread_;
  pid_t pid_ = 0;

  // The thread's own.
  std::deque<std::shared_ptr<Task>> tasks_;
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_;
  std::vector<uint32_t> parked_;  ///< slots that wait for their phase (file_link.hpp)
  uint8_t* bounces_ = nullptr;    ///< one block per slot
  bool fixed_ = false;            ///< they are registered with the ring
};

}  // namespace mori::io::file
