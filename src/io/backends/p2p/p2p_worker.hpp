// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// A job on one GPU: cut into windows, each queued on a lane (a stream with its table of pieces), up to two
// windows at a time. A window is confirmed when the mark behind it has been reached; so cancelling waits for
// two windows at most, and what is left of the job is known exactly.
//
//   job   [ window | window | window | not queued yet ... ]
//            done     lane 1   lane 2
//
// Everything here runs under the backend's lock.
#pragma once
#include <chrono>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "src/core/runtime/copy_queue.hpp"
#include "src/io/backends/p2p/copy_args.hpp"
#include "src/io/backends/p2p/p2p_memory.hpp"

namespace mori::io::p2p {

inline constexpr uint64_t kWindowBytes = 64 << 20;
inline constexpr uint32_t kMaxPieces = 4096;     ///< of a window
inline constexpr uint32_t kBlockThreads = 256;   ///< of a block of the kernel
inline constexpr uint32_t kWindowsInFlight = 2;  ///< of a job

struct Counters {
  uint64_t launches = 0;
  uint64_t copies = 0;
  uint64_t bytes = 0;
};

/// How the kernel is launched for a window.
struct CopyGrid {
  uint32_t blocks = 1;
  uint32_t warps = 1;   ///< of a block
  uint32_t shift = 12;  ///< a chunk is 1 << shift bytes
  uint64_t chunks = 0;
};
/// At most `blocks` blocks of `warps` warps for these pieces. Pure.
CopyGrid plan_grid(std::span<const IoCopyPiece> pieces, uint64_t bytes, uint32_t blocks, uint32_t warps);
/// Divides the chunks evenly among the grid's blocks. Pure.
void share_out(std::span<const IoCopyPiece> pieces, const CopyGrid& grid, IoCopyShare* shares);

struct Lane {
  Lane(const std::shared_ptr<core::Device>& device, uint32_t blocks, uint64_t arrival_word)
      : queue(device),
        table(device->allocate_host(kMaxPieces * sizeof(IoCopyPiece) + blocks * sizeof(IoCopyShare))),
        arrivals(arrival_word) {}
  IoCopyPiece* pieces() const { return static_cast<IoCopyPiece*>(table.host); }
  IoCopyShare* shares() const { return reinterpret_cast<IoCopyShare*>(pieces() + kMaxPieces); }

  core::CopyQueue queue;
  core::HostMemory table;  ///< IoCopyPiece[kMaxPieces], IoCopyShare[blocks]
  uint64_t arrivals;
};

/// What a GPU has for jobs: lanes, made when needed and reused.
class Worker {
 public:
  Worker(std::shared_ptr<core::Device> device, const P2pOptions& options);
  ~Worker();

  const std::shared_ptr<core::Device>& device() const { return device_; }
  /// Null if all are in use.
  Lane* take();
  void give(Lane* lane) { free_.push_back(lane); }
  /// Queues the first `count` pieces of the lane's table, or the same as copies if there is no kernel, and
  /// the mark behind them.
  void queue_pieces(Lane& lane, uint32_t count, uint64_t bytes, Counters& counters);
  void queue_copy(Lane& lane, uint64_t to, uint64_t from, uint64_t bytes, Counters& counters);

 private:
  static constexpr size_t kMaxLanes = 8;

  std::shared_ptr<core::Device> device_;
  const core::Function* kernel_ = nullptr;  ///< null where no code object was built for this GPU
  const uint32_t blocks_;
  const bool kernel_marks_;
  uint64_t arrivals_ = 0;  ///< a word for each lane, in device memory
  std::vector<std::unique_ptr<Lane>> lanes_;
  std::vector<Lane*> free_;
};

/// A job under way.
class Carry {
 public:
  Carry(JobPtr job, Worker& worker, uint64_t local, uint64_t remote, bool by_kernel);

  /// Looks at the windows in flight and queues more. True when the job has ended: see outcome().
  bool advance(Counters& counters);
  /// To be called once nothing is in flight any more.
  Outcome outcome();
  const JobPtr& job() const { return job_; }
  bool in_flight() const { return !windows_.empty(); }
  void stop(StatusCode code, std::string message, bool reroutable);

  const Clock::time_point submitted = Clock::now();
  Clock::time_point next_look{};
  std::shared_ptr<Pin> pin;  ///< of the local region, if it is host memory
  std::shared_ptr<P2pRoute::Use> use;

 private:
  struct Place {
    size_t segment = 0;
    uint64_t offset = 0;
  };
  struct Window {
    Lane* lane;
    Place begin, end;
    uint64_t bytes;
    bool failed;  ///< queued in part only
  };
  bool queue_window(Counters& counters);
  uint64_t fill_pieces(Lane& lane, Counters& counters);
  uint64_t fill_copies(Lane& lane, Counters& counters);
  IoCopyPiece piece(const Segment& segment, uint64_t offset, uint64_t bytes) const;
  void unfinished(Place begin, Place end, std::vector<Segment>& out) const;

  JobPtr job_;
  Worker& worker_;
  const std::span<const Segment> segments_;
  const uint64_t local_, remote_;
  const bool write_, by_kernel_;
  Place next_;
  std::deque<Window> windows_;
  std::vector<Segment> failed_;  ///< windows whose event told of a failure
  bool stopped_ = false;
  Outcome outcome_;
};

}  // namespace mori::io::p2p
