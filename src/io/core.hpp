// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The inside of an engine: it joins the registry, the other engines, the backends, the control plane and the
// transfers in flight, and is what each of them may call. The outside is engine.hpp.
#pragma once
#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "src/io/backends/table.hpp"
#include "src/io/control/control.hpp"
#include "src/io/fork_guard.hpp"
#include "src/io/inflight.hpp"
#include "src/io/metrics.hpp"
#include "src/io/registry.hpp"
#include "src/io/remote.hpp"
#include "src/io/transfer.hpp"
#include "src/io/worker.hpp"

namespace mori::io {

struct EngineOptions {
  std::string key;  ///< of this engine: 1 to 255 bytes
  std::string host;
  uint16_t port = 0;
  std::optional<std::string> secret;
  bool allow_insecure = false;
  bool same_host = true;
  std::chrono::milliseconds connect_timeout{5000};
  std::chrono::milliseconds close_timeout{10000};
  std::chrono::nanoseconds transfer_timeout{30'000'000'000};  ///< of transfers without one; 0 = none
  uint32_t retries = 4;     ///< other routes that one transfer may take after failures
  size_t trace_events = 0;  ///< 0 = no trace
};

/// A message that a peer sent with a transfer or alone.
struct Notification {
  std::string engine;
  uint64_t uid = 0;
  std::string message;
};

class Core final : public Host,
                   public RemoteHost,
                   private control::Handler,
                   public std::enable_shared_from_this<Core> {
 public:
  explicit Core(EngineOptions options);
  ~Core() override;
  /// Listens. Separate from the constructor since peers may call as soon as it returns.
  void open();
  /// Ends all transfers, takes all memory back from peers, joins all threads. False: a backend still had jobs
  /// at the deadline; then everything they may touch stays for ever.
  bool close();

  // ---- for transfers ----
  /// A thread that is inside the engine's backends; close() waits for it.
  class Use {
   public:
    explicit Use(Core& core) : core_(core) { core_.uses_.fetch_add(1); }
    ~Use() { core_.uses_.fetch_sub(1); }
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;

   private:
    Core& core_;
  };
  const ForkGuard& guard() const { return guard_; }
  Inflight& inflight() { return inflight_; }
  Metrics& metrics() { return metrics_; }
  Trace& trace() { return trace_; }
  bool closing() const { return closing_.load(); }
  uint32_t retry_budget() const { return options_.retries; }
  Deadline route_deadline(Deadline transfer) const;
  Deadline default_deadline() const {
    const auto timeout = options_.transfer_timeout;
    return timeout.count() == 0 ? Deadline::max() : Clock::now() + timeout;
  }
  void began(Transfer& transfer);
  void carried(Transfer& transfer, Attempt& attempt);
  void attempt_ended(Transfer& transfer, Attempt& attempt, StatusCode code);
  void ended(Transfer& transfer, StatusCode code);
  void reroute(std::shared_ptr<Transfer> transfer, const Choice& choice, StatusCode code);
  void announce(Transfer& transfer);

  // ---- for the engine ----
  const EngineOptions& options() const { return options_; }
  Registry& registry() { return registry_; }
  control::Control& control();
  /// What a descriptor names; throws Refused err_not_found for an engine that was not introduced,
  /// err_bad_state for another incarnation.
  RemoteMemoryPtr remote_memory(const RemoteRegion& region);
  void introduce(const control::Address& address);
  /// Forgets the engine: its transfers end, its memories are let go.
  void forget(const std::string& engine);
  std::shared_ptr<RemoteEngine> remote_engine(const std::string& engine) const;  ///< null: unknown
  std::vector<std::shared_ptr<RemoteEngine>> remote_engines() const;
  bool notify(const std::string& engine, uint64_t uid, const std::string& message, Deadline deadline);
  std::vector<Notification> take_notifications(uint64_t& dropped);
  std::optional<std::pair<StatusCode, std::string>> take_inbound(const std::string& engine, uint64_t uid);

  void add_backend(const std::string& name, const BackendOptions& options);
  void remove_backend(const std::string& name, Deadline deadline);
  std::vector<std::pair<std::string, std::string>> backend_notes() const;  ///< name, why it is not there
  Backend* backend(std::string_view name) const;
  std::vector<Backend*> eager_backends() const;
  /// Takes memories back from everybody. Throws TimeoutError when a local transfer does not end.
  void deregister(const LocalMemoryPtr& memory, Deadline deadline);
  uint64_t next_transfer_id() { return transfer_ids_.fetch_add(1, std::memory_order_relaxed); }

  // ---- Host, RemoteHost ----
  std::shared_ptr<const Region> region(uint64_t id, const RegionKey& key) const override;
  const std::string& engine() const override { return options_.key; }
  uint64_t incarnation() const override { return incarnation_; }
  std::shared_ptr<Peer> connect(const control::Address& address, Deadline deadline) override;
  control::Attachments open(Peer& owner, uint64_t id, const RegionKey& key, uint64_t incarnation,
                            Deadline deadline) override;
  std::vector<Backend*> backends() const override;
  uint64_t backends_version() const override { return backends_version_.load(); }

 private:
  class SelfPeer;
  // control::Handler
  control::Attachments open(Peer& by, uint64_t id, const RegionKey& key) override;
  std::string answer(Peer& from, std::string_view backend, std::string_view request,
                     std::vector<Fd>& pass) override;
  void told(Peer& from, std::string_view backend, std::string_view message) override;
  void accepted(Peer& from, std::string_view backend, Stream stream) override;
  void revoked(Peer& owner, uint64_t id, std::function<void()> acknowledge) override;
  void notified(Peer& from, uint64_t uid, StatusCode code, std::string message) override;
  void lost(Peer& peer, const std::string& reason) override;

  /// Ends the transfers that `concerns` picks and waits until they are over.
  bool quiesce(const std::function<bool(const Transfer&)>& concerns, StatusCode code,
               const std::string& message, Deadline deadline);
  Backend& known_backend(std::string_view name) const;
  /// A removed backend of this row that was made with the same options; null: there is none.
  std::shared_ptr<Backend> take_retired(size_t row, const BackendOptions& options);

  const EngineOptions options_;
  const uint64_t incarnation_;
  ForkGuard guard_;
  std::atomic<bool> closing_{false};
  std::atomic<uint32_t> uses_{0};
  std::atomic<uint64_t> transfer_ids_{1};
  std::atomic<uint64_t> backends_version_{1};
  Metrics metrics_;
  Trace trace_;
  Registry registry_;

  mutable std::mutex mutex_;  ///< of what follows; never held while calling a backend or the control plane
  std::map<std::string, std::shared_ptr<RemoteEngine>> engines_;
  std::shared_ptr<SelfPeer> self_;
  std::vector<std::pair<size_t, std::shared_ptr<Backend>>> backends_;  ///< with the row; ordered by it
  std::map<const Backend*, BackendOptions> made_with_;                 ///< of backends_ and retired_
  /// Removed, but a message for them may be under way. With their row, so that they come back if the same is
  /// wanted again: who removes and adds in turns does not gather threads.
  std::vector<std::pair<size_t, std::shared_ptr<Backend>>> retired_;
  std::vector<std::shared_ptr<Backend>> leaving_;  ///< being removed: their jobs end
  std::map<std::string, std::string> backend_notes_;
  std::deque<Notification> notifications_;
  size_t notification_bytes_ = 0;
  uint64_t notifications_dropped_ = 0;
  std::map<std::pair<std::string, uint64_t>, std::pair<StatusCode, std::string>> inbound_;
  std::deque<std::pair<std::string, uint64_t>> inbound_order_;

  Inflight inflight_;
  Worker rerouter_;
  Worker revoker_;
  std::unique_ptr<control::Control> control_;
};

}  // namespace mori::io
