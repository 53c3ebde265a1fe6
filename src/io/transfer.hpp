// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// One transfer between two memories: the status that its owner sees, and the jobs that backends get, one
// after the other: the next is made of what the one before could not confirm.
//
// States under `mutex_`: *between* (no job: being routed, or waiting for the worker) and *carried* (a backend
// has the job). Asked to stop, a transfer in between ends at once; a carried one when its backend has
// quiesced.
#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "src/io/inflight.hpp"
#include "src/io/planner.hpp"
#include "src/io/registry.hpp"
#include "src/io/remote.hpp"
#include "src/io/status.hpp"

namespace mori::io {

class Core;
class Transfer;

/// One backend's try.
class Attempt final : public Job {
 public:
  Attempt(Transfer& transfer, Choice choice, std::span<const Segment> segments, uint64_t bytes)
      : transfer_(transfer), choice_(std::move(choice)), segments_(segments), bytes_(bytes) {}
  Attempt(Transfer& transfer, Choice choice, std::vector<Segment> segments)
      : transfer_(transfer),
        choice_(std::move(choice)),
        own_(std::move(segments)),
        segments_(own_),
        bytes_(total_bytes(own_)) {}

  Op op() const override;
  const Region& local() const override;
  const RemoteRegion& remote() const override { return choice_.pin->region; }
  Peer& peer() const override { return *choice_.peer; }
  Route& route() const override { return *choice_.route; }
  std::span<const Segment> segments() const override { return segments_; }
  uint64_t bytes() const override { return bytes_; }
  Deadline deadline() const override;
  bool stopping() const override;
  void progressed(uint64_t bytes) override;
  void finish(Outcome outcome) override;

  const Choice& choice() const { return choice_; }

 private:
  friend class Transfer;
  Transfer& transfer_;  ///< a JobPtr shares the transfer's ownership
  Choice choice_;
  std::vector<Segment> own_;
  std::span<const Segment> segments_;
  uint64_t bytes_;
  uint64_t progress_ = 0;
  std::atomic<bool> finished_{false};
};

struct TransferRequest {
  Op op = Op::write;
  LocalMemoryPtr local;
  RemoteMemoryPtr remote;
  std::shared_ptr<const Plan> plan;  ///< offsets from the local pin's and the remote memory's start
  Deadline deadline = Deadline::max();
  uint64_t uid = 0;
  bool announce = false;  ///< tell the peer the uid when it is done
  std::string notify;     ///< and these words
};

class Transfer final : public Status, public InflightNode {
 public:
  Transfer(Core& core, uint64_t id, TransferRequest request);

  // ---- owner of the status
  void update(StatusCode code, std::string message) override;
  bool cancel() override;
  uint64_t bytes_total() const override { return request_.plan->bytes; }
  uint64_t bytes_done() const override { return done_.load(std::memory_order_relaxed); }
  uint64_t id() const override { return id_; }
  std::string route() const override;

  // ---- engine
  const TransferRequest& request() const { return request_; }
  /// Enters the list of transfers in flight, finds a route and hands the job over. May block for the route.
  void start();
  /// After a failure: the rest by another route. May block.
  void resume();
  /// True the first time: the transfer ends with `reason` as soon as nothing of it can be written any more.
  bool stop(StatusCode reason, const std::string& message);
  uint64_t started_ns() const { return started_ns_; }
  size_t segments() const { return request_.plan->segments.size(); }

  void expired() override;
  std::shared_ptr<InflightNode> hold() override {
    return std::static_pointer_cast<Transfer>(weak_from_this().lock());
  }

 protected:
  bool help() override;
  void check_process() const override;

 private:
  friend class Attempt;
  void carry(const std::vector<Backend*>& without);
  void begin(Choice choice);
  void attempt_finished(Attempt& attempt, Outcome outcome);
  void conclude(StatusCode code, std::string message);
  /// Keeps the current attempt's route while a thread is inside its backend; made under mutex_.
  class Visit;
  void drop_routes_if_unused();  // under mutex_
  bool stop_requested() const { return stopping_.load(std::memory_order_acquire); }

  Core& core_;  ///< touched only while not terminal
  const uint64_t id_;
  const TransferRequest request_;
  const uint64_t started_ns_;
  std::atomic<uint64_t> done_{0};
  std::atomic<bool> stopping_{false};

  mutable std::mutex mutex_;
  StatusCode stop_code_ = StatusCode::success;
  std::string stop_message_;
  bool concluded_ = false;
  uint32_t visits_ = 0;
  Attempt* current_ = nullptr;  ///< carried
  const char* route_ = "";
  std::optional<Attempt> first_;
  std::vector<std::unique_ptr<Attempt>> later_;
  std::vector<Segment> rest_;  ///< for the next attempt; offsets of the pins
  bool has_rest_ = false;
  std::vector<Backend*> tried_;
  std::string last_failure_;
  uint32_t retries_ = 0;
};

}  // namespace mori::io
