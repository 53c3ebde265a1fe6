// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// A job whose local memory is a GPU's, carried chunk by chunk by a backend that knows host memory only.
//
//   write   GPU --copy--> chunk --inner job--> peer          read   peer --inner job--> chunk --copy--> GPU
//
// Up to kChunks of a job are in different stages at a time. advance() takes each as far as it goes and never
// waits; whoever has time calls it. The inner backend may finish its job inside submit(), or on any thread:
// that only leaves the outcome to be found.
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "src/io/backend.hpp"
#include "src/io/backends/p2p/staging.hpp"

namespace mori::io::staged {

inline constexpr size_t kChunks = 3;

/// What prepare() gives: the inner backend's route for host memory.
class StagedRoute final : public Route, public std::enable_shared_from_this<StagedRoute> {
 public:
  explicit StagedRoute(std::shared_ptr<Route> owned) : inner(std::move(owned)) {}
  const std::shared_ptr<Route> inner;
  std::atomic<bool> revoked{false};
};

class InnerJob;

class Carry {
 public:
  /// `wake`: an inner job has ended.
  Carry(JobPtr job, Backend& inner, Staging& staging, std::function<void()> wake);
  ~Carry();

  /// True once, for one caller: the job has ended, outcome() is to be reported.
  bool advance();
  Outcome outcome();
  /// Lets nothing further start. The first reason stays.
  void stop(StatusCode code, std::string message, bool reroutable);
  /// Whether a GPU copies, or a chunk is waited for: nobody announces the end of that.
  bool wants_looks() const { return wants_looks_.load(std::memory_order_relaxed); }
  /// Inner jobs under way.
  std::vector<std::shared_ptr<InnerJob>> inner_jobs() const;

  const JobPtr job;
  const std::shared_ptr<Route> route;  ///< a StagedRoute; the engine may drop it once the job was reported
  Peer* const peer;                    ///< to compare: it may be gone once the job was reported
  const Clock::time_point submitted = Clock::now();

 private:
  enum class Stage { fetching, carrying, storing };
  struct Slot {
    Stage stage = Stage::fetching;
    Staging::Chunk chunk;
    std::vector<Segment> copies;  ///< local: in the chunk, remote: in the GPU region
    std::vector<Segment> load;    ///< of the outer job
    uint64_t bytes = 0;
    std::shared_ptr<InnerJob> inner{};
  };
  bool start_slot();
  /// Whether the slot is over.
  bool advance(Slot& slot);
  void carry(Slot& slot);
  bool carried(Slot& slot);
  void give_up(const Slot& slot);
  void stop_locked(StatusCode code, std::string message, bool reroutable);

  Backend& inner_;
  Staging& staging_;
  const std::function<void()> wake_;
  mutable std::mutex mutex_;
  size_t segment_ = 0;  ///< the first that is not in a slot yet, and how much of it is
  uint64_t offset_ = 0;
  std::vector<std::unique_ptr<Slot>> slots_;
  bool ended_ = false;
  Outcome outcome_;
  const std::shared_ptr<std::atomic<bool>> stopped_ = std::make_shared<std::atomic<bool>>(false);
  std::atomic<bool> wants_looks_{false};
  friend class InnerJob;
};

/// A chunk's worth of a job, as the inner backend sees it: host memory to or from the peer's.
class InnerJob final : public Job {
 public:
  InnerJob(Carry& carry, const Region& chunk, std::vector<Segment> segments);
  Op op() const override { return outer_->op(); }
  const Region& local() const override { return chunk_; }
  const RemoteRegion& remote() const override { return outer_->remote(); }
  Peer& peer() const override { return outer_->peer(); }
  Route& route() const override { return *static_cast<StagedRoute&>(*route_).inner; }
  std::span<const Segment> segments() const override { return segments_; }
  uint64_t bytes() const override { return bytes_; }
  Deadline deadline() const override { return outer_->deadline(); }
  bool stopping() const override { return *stopped_ || outer_->stopping(); }
  void progressed(uint64_t) override {}  // a chunk counts when it is where it belongs
  void finish(Outcome outcome) override;
  /// Null until finish().
  Outcome* ended() { return ended_.load(std::memory_order_acquire) ? &outcome_ : nullptr; }

 private:
  const JobPtr outer_;
  const std::shared_ptr<Route> route_;
  const std::shared_ptr<const std::atomic<bool>> stopped_;
  const std::function<void()> wake_;
  const Region chunk_;
  const std::vector<Segment> segments_;
  uint64_t bytes_ = 0;
  Outcome outcome_;
  std::atomic<bool> ended_{false};
};

}  // namespace mori::io::staged
