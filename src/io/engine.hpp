// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The transfer engine as its users see it; python/bindings/io.cpp binds exactly this.
//
//   Engine a({.key = "prefill"});            a.add_backend("shm", {});
//   LocalMemoryPtr m = a.register_memory({region})[0];
//   a.introduce(address of b);               // from b's descriptor
//   Session s = a.session(m, remote);        // remote: from the descriptor of b's memory
//   std::shared_ptr<Status> t = s.submit(Op::write, ranges, {});
//   t->wait(deadline);
//
// Every call may come from any thread. close() (or the destructor) ends all transfers and takes this engine's
// memory back from its peers.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "src/io/core.hpp"

namespace mori::io {

/// What goes with one transfer.
struct SubmitOptions {
  uint64_t uid = 0;
  std::optional<Deadline> deadline;  ///< the engine's default if not given
  std::string notify;                ///< sent to the peer once the bytes are in place
  bool announce = false;             ///< the peer learns the uid then, even without words
};

/// A plan bound to a pair of memories: checked, sorted and merged once, carried out any number of times.
class PreparedTransfer {
 public:
  PreparedTransfer(std::shared_ptr<Core> core, TransferRequest request)
      : core_(std::move(core)), request_(std::move(request)) {}
  /// Posts may overlap in time; each has a status of its own.
  std::shared_ptr<Status> post(SubmitOptions options) const;
  uint64_t bytes() const { return request_.plan->bytes; }
  size_t segments() const { return request_.plan->segments.size(); }

 private:
  std::shared_ptr<Core> core_;
  TransferRequest request_;
};

/// A pair of memories.
class Session {
 public:
  Session(std::shared_ptr<Core> core, LocalMemoryPtr local, RemoteMemoryPtr remote)
      : core_(std::move(core)), local_(std::move(local)), remote_(std::move(remote)) {}

  /// One transfer. What is wrong with `ranges` becomes err_invalid_args of the status.
  std::shared_ptr<Status> submit(Op op, const Ranges& ranges, SubmitOptions options) const;
  /// Throws core::ConfigError for the ranges.
  std::shared_ptr<PreparedTransfer> prepare(Op op, const Ranges& ranges) const;
  /// Asks the peer; true only if it answered in time.
  bool alive(Deadline deadline) const;
  /// Finds the route now rather than at the first transfer. Throws as a transfer would fail.
  void open(Deadline deadline) const;
  std::vector<Candidate> explain(Deadline deadline) const;

 private:
  TransferRequest request(Op op, std::shared_ptr<const Plan> plan) const;
  Window window() const { return {local_->bytes, remote_->region.bytes, local_->offset, 0}; }

  std::shared_ptr<Core> core_;
  LocalMemoryPtr local_;
  RemoteMemoryPtr remote_;
};

class Engine {
 public:
  explicit Engine(EngineOptions options);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  const std::string& key() const { return core_->engine(); }
  uint64_t incarnation() const { return core_->incarnation(); }
  std::string host() const { return host_; }
  uint16_t port() const { return port_; }
  bool closed() const { return core_->closing(); }

  void add_backend(const std::string& name, const BackendOptions& options);
  void remove_backend(const std::string& name);
  std::vector<std::string> backends() const;
  std::vector<std::pair<std::string, std::string>> missing_backends() const;  ///< name, why

  std::vector<LocalMemoryPtr> register_memory(std::vector<Region> regions);
  /// Waits until nobody uses it. Throws ConfigError when there is no such memory of this engine.
  void deregister_memory(uint64_t id);

  void introduce(const control::Address& address);
  void forget(const std::string& engine);
  bool alive(const std::string& engine, Deadline deadline);

  /// Throws ConfigError for an id that is not registered here, Refused for a remote that cannot be.
  std::shared_ptr<Session> session(uint64_t local_id, const RemoteRegion& remote);

  void notify(const std::string& engine, uint64_t uid, const std::string& message, Deadline deadline);
  std::vector<Notification> take_notifications(uint64_t& dropped);
  std::optional<std::pair<StatusCode, std::string>> take_inbound(const std::string& engine, uint64_t uid);

  const Metrics& metrics() const { return core_->metrics(); }
  size_t in_flight() const { return core_->inflight().size(); }
  std::vector<std::pair<std::string, std::vector<std::pair<std::string, double>>>> counters() const;
  Trace& trace() { return core_->trace(); }

  void close();

 private:
  void check() const;

  std::shared_ptr<Core> core_;
  std::string host_;
  uint16_t port_ = 0;
  std::mutex close_mutex_;
  bool closed_ = false;
};

}  // namespace mori::io
