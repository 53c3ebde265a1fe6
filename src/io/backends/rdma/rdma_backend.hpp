// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The rdma backend: one-sided WRITE and READ over reliable connections. docs/io_rdma.md has the protocol, the
// states of a rail, and what a failure does.
//
//   rdma_backend.cpp  the contract of Backend: registration, routes, submit, cancel, loss of a peer
//   data_path.cpp     posting, completions, the end of works
//   progress.cpp      the thread that sleeps until a NIC or a caller has something to say
//   repair.cpp        the thread that takes broken rails down and makes others
//
// One lock, mutex_. Nothing that waits for a peer, and no Job::finish(), happens under mutex_.
#pragma once
#include <atomic>
#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "src/io/backend.hpp"
#include "src/io/backends/rdma/link.hpp"

namespace mori::io::rdma {

class RdmaBackend final : public Backend {
 public:
  /// Throws ConfigError for a setting. A machine without RDMA gives a backend that says why it has no routes.
  explicit RdmaBackend(Config config);
  ~RdmaBackend() override;

  /// Why this machine cannot use it at all; empty if it can.
  const std::string& unavailable() const { return nics_.reason(); }

  std::string_view name() const override { return "rdma"; }
  std::optional<std::string> attach(const Region& region) override;
  bool eager_attach() const override { return true; }
  void detach(const Region& region) override;
  std::string answer(Peer& peer, std::string_view request, std::vector<Fd>& pass) override;
  void told(Peer& peer, std::string_view message) override;

  Prepared prepare(const Region& local, const RemoteRegion& remote, Peer& peer, const std::string& attachment,
                   Deadline deadline) override;
  void submit(JobPtr job) override;
  bool help(Job& job) override;
  void nudge(Job& job) override;
  void revoke(Route& route) override;
  void lost(Peer& peer) override;
  std::vector<std::pair<std::string, double>> counters() const override;

  /// Moves every queue pair of this side to the error state behind the backend's back, as a failing NIC
  /// would. For tests of recovery.
  void break_queues();

 private:
  using Lock = std::unique_lock<std::mutex>;
  struct Ended {
    JobPtr job;
    Outcome outcome;
    std::shared_ptr<uint64_t> open_jobs;  ///< of its route, which may be gone when finish() returns
  };
  using Done = std::vector<Ended>;
  struct Limbo {
    Work* work;
    Range range;
  };

  // rdma_backend.cpp
  std::shared_ptr<Link> link_to(Peer& peer);
  void add_candidates(Link& link, const LocalMemory& local, const Attachment& attachment);
  void start();
  void wake();

  // data_path.cpp; the caller holds mutex_
  void enqueue(Link& link, Work& work);
  void pump(Link& link);
  bool post_some(Link& link, Work& work);
  std::pair<Rail*, Queue*> choose_queue(Link& link, const Work& work);
  bool poll(Link& link);
  size_t poll(Link& link, Rail& rail);
  void confirm(Link& link, Queue& queue, uint64_t end);
  void failed_completion(Link& link, Rail& rail, Queue& queue, const verbs::Wc& wc, uint64_t sequence);
  void fail_rail(Link& link, Rail& rail, std::string reason);
  void stop(Link& link, Work& work, StatusCode code, std::string message, bool reroutable);
  void settle(Link& link, Work& work);
  void watch(Link& link, Deadline now);
  /// Ends what cannot go anywhere, or asks for repair.
  void review(Link& link);
  /// The caller delivers them, without mutex_.
  Done take_done();
  void deliver(Done done);

  // progress.cpp
  void progress_loop();
  bool progress_once();
  Deadline next_timer() const;
  void sleep_until(Deadline timer);
  void take_events(Nic& nic);
  void handle_event(Nic& nic, int type, const void* element);

  // repair.cpp
  void repair_loop();
  void request_repair(Link& link);
  void repair(const std::shared_ptr<Link>& link, Lock& lock);
  std::vector<Limbo> dismantle(Link& link, Rail& rail);
  void resolve(Link& link, const std::vector<Limbo>& limbo, const std::string& doubt, StatusCode code);
  /// Makes rails until the wished number is up. With `local` and `route`, only such as serve them count.
  void connect_rails(Link& link, Deadline deadline, const LocalMemory* local, const RdmaRoute* route);
  void make_rails(Link& link, Deadline deadline, const LocalMemory* local, const RdmaRoute* route);
  std::unique_ptr<Rail> open_rail(Link& link, const Candidate& candidate, Deadline deadline);

  const Config config_;
  Nics nics_;
  Memory memory_;
  PassiveRails passive_;
  std::atomic<uint64_t> next_epoch_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;  ///< a rail drained, a work ended
  std::condition_variable repair_wake_;
  std::map<std::pair<std::string, uint64_t>, std::shared_ptr<Link>> links_;
  std::vector<std::shared_ptr<Link>> active_;  ///< of links_, and lost ones that are not settled
  std::vector<std::shared_ptr<Link>> to_repair_;
  Done done_;
  bool closing_ = false;
  bool nudged_ = false;
  Deadline watch_at_{};
  Deadline alarm_ = Deadline::max();  ///< until when the progress thread sleeps
  uint64_t in_flight_ = 0;            ///< work requests
  std::vector<Piece> pieces_;
  std::vector<verbs::Sge> sges_;
  std::vector<verbs::SendWr> requests_;

  // counters
  uint64_t posted_ = 0, written_bytes_ = 0, read_bytes_ = 0, full_ = 0, rails_opened_ = 0, rails_failed_ = 0,
           resent_ = 0;

  Fd wake_;
  std::thread progress_;
  std::thread repair_;
};

}  // namespace mori::io::rdma
