// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The outcome of a transfer, from its owner's side: init -> in_progress -> success | error, one way, and
// waiting for it without polling. A Status may be dropped at any time: who carries the transfer holds it,
// too.
#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "src/io/backend.hpp"

namespace mori::io {

inline bool is_terminal(StatusCode code) {
  return code != StatusCode::init && code != StatusCode::in_progress;
}
inline bool is_failure(StatusCode code) { return code > StatusCode::err_begin; }
const char* status_name(StatusCode code);

class Status;

/// Collects the ids of statuses that became terminal and makes an eventfd readable: for event loops.
class Completions {
 public:
  Completions();
  ~Completions();
  Completions(const Completions&) = delete;
  Completions& operator=(const Completions&) = delete;

  int fd() const { return fd_; }
  /// Ids in the order of completion since the last call; the eventfd is quiet again.
  std::vector<uint64_t> take();
  void push(uint64_t id);

 private:
  int fd_;
  std::mutex mutex_;
  std::vector<uint64_t> ready_;
};

class Status : public std::enable_shared_from_this<Status> {
 public:
  Status() = default;
  virtual ~Status() = default;
  Status(const Status&) = delete;
  Status& operator=(const Status&) = delete;

  StatusCode code() const { return StatusCode(code_.load(std::memory_order_acquire)); }
  bool terminal() const { return is_terminal(code()); }
  std::string message() const;

  /// Sets code and message; a terminal status stays what it is. Refused for a transfer of an engine, which
  /// only the engine ends.
  virtual void update(StatusCode code, std::string message);

  /// Until terminal or the deadline. The caller's thread carries the transfer where it can.
  StatusCode wait(Deadline deadline);

  /// Asks to stop; the status becomes err_cancelled once nothing of it can be written any more, or success if
  /// it was complete by then. False: it was terminal before.
  virtual bool cancel() { return false; }
  virtual uint64_t bytes_total() const { return 0; }
  virtual uint64_t bytes_done() const { return 0; }
  virtual uint64_t id() const { return 0; }
  /// Backend that carries or carried it; empty before.
  virtual std::string route() const { return {}; }

  /// `queue` gets `id` when this becomes terminal; at once if it is.
  void tell(std::shared_ptr<Completions> queue, uint64_t id);

 protected:
  /// False: it was terminal already.
  bool set(StatusCode code, std::string message);
  /// Lends the thread to the transfer for a moment. False: nothing to do for it.
  virtual bool help() { return false; }
  /// In a forked child nobody will ever end this.
  virtual void check_process() const {}

 private:
  std::atomic<int32_t> code_{int32_t(StatusCode::init)};
  std::atomic<int32_t> waiters_{0};
  mutable std::mutex mutex_;
  std::string message_;
  std::vector<std::pair<std::shared_ptr<Completions>, uint64_t>> listeners_;
};

/// Waits for all of them. in_progress if some are not terminal at the deadline, else the first failure in the
/// order of the list, else success (also of nothing). A failure is reported once all of them are terminal:
/// only then may their memory be used again.
StatusCode wait_all(std::span<const std::shared_ptr<Status>> statuses, Deadline deadline);

}  // namespace mori::io
