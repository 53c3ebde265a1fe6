// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The transfers of an engine that are not over: their deadlines, and waiting until those of some memory are
// gone. One thread, started with the first transfer that has a deadline; it sleeps until the earliest one
// that it knows, so transfers that end in time cost it nothing.
#pragma once
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "src/io/backend.hpp"

namespace mori::io {

/// A member of the list; at most one list at a time.
class InflightNode {
 public:
  virtual ~InflightNode() = default;
  /// The deadline passed. Called without locks, at least once.
  virtual void expired() = 0;
  /// To keep it while expired() or a visit runs; null when it is being destroyed.
  virtual std::shared_ptr<InflightNode> hold() = 0;

 private:
  friend class Inflight;
  Deadline deadline_ = Deadline::max();
  InflightNode* next_ = nullptr;
  InflightNode** link_ = nullptr;  ///< what points here; null when in no list
};

class Inflight {
 public:
  Inflight() = default;
  ~Inflight();
  Inflight(const Inflight&) = delete;
  Inflight& operator=(const Inflight&) = delete;

  void add(InflightNode& node, Deadline deadline);
  /// The last touch of the engine by a transfer: whoever waits for it may destroy the engine afterwards.
  void remove(InflightNode& node);
  /// Calls `visit` for each member, without locks.
  void each(const std::function<void(InflightNode&)>& visit);
  /// Until no member fulfils `concerns` (called under the lock). False: the deadline passed.
  bool wait_until_none(const std::function<bool(const InflightNode&)>& concerns, Deadline deadline);
  size_t size() const;

 private:
  void run();

  mutable std::mutex mutex_;
  std::condition_variable wake_;     // the thread: an earlier deadline, or the end
  std::condition_variable removed_;  // wait_until_none()
  InflightNode* first_ = nullptr;
  size_t size_ = 0;
  size_t waiting_ = 0;
  Deadline next_look_ = Deadline::max();
  bool started_ = false;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace mori::io
