// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Control's inside: the epoll thread, the listeners, who is known. dial.cpp holds the dialer's half of the
// handshake (in the caller's thread), loop.cpp the control thread, control.cpp the calls.
//
// Locks: mutex_ (tables), then PeerState::mutex, then Connection's. Handler is called with none of them held.
#pragma once
#include <condition_variable>
#include <map>
#include <mutex>
#include <set>
#include <thread>

#include "src/io/control/incoming.hpp"
#include "src/io/control/peer.hpp"

namespace mori::io::control {

class Control::Impl final : public Dialler, public std::enable_shared_from_this<Control::Impl> {
 public:
  Impl(Options options, Handler& handler);
  void start();
  void stop();

  const Listener& listener() const { return listener_; }
  bool inherited() const;  ///< in a forked child
  void check_may_wait(const char* what) const override;

  std::shared_ptr<PeerState> connect(const Address& address, Deadline deadline);
  Stream dial_stream(PeerState& peer, std::string_view backend, Deadline deadline) override;
  std::vector<std::string> revoke(uint64_t id, Deadline deadline);
  std::vector<std::pair<std::string, double>> counters() const;
  const Options& options() const { return options_; }

 private:
  struct Dialled {
    Fd fd;
    bool is_unix = false;
    Credentials credentials;
    std::string engine;
    uint64_t incarnation = 0;
    std::string host;  ///< numeric address of the other end
    MacKey send_key{}, receive_key{};
  };
  using PeerKey = std::pair<std::string, uint64_t>;

  // dial.cpp
  Dialled dial(const Address& address, Kind kind, std::string_view backend, Deadline deadline);
  Dialled shake_hands(Fd fd, const Address& address, Kind kind, std::string_view backend, Deadline deadline,
                      bool is_unix);
  void check_insecure(const std::string& host) const;

  // tables
  std::shared_ptr<PeerState> find(const Address& address);
  std::shared_ptr<PeerState> adopt(Fd fd, bool is_unix, Credentials credentials, const PeerKey& key,
                                   const MacKey& send_key, const MacKey& receive_key,
                                   const std::string& address, const std::string& dial_host,
                                   uint16_t dial_port, bool dial_known);
  void evict_idle();

  // loop.cpp: control thread
  void run();
  void on_event(uint64_t id, uint32_t events);
  void accept_all(int listener, bool is_unix);
  void on_incoming(uint64_t id);
  void finish_incoming(Incoming& incoming);
  void on_connection(const std::shared_ptr<Connection>& connection, uint32_t events);
  void on_frame(const std::shared_ptr<PeerState>& peer, Connection& connection, Frame& frame);
  void on_ask(PeerState& peer, Connection& connection, Frame& frame, uint64_t request, std::string_view body);
  void on_open(PeerState& peer, Connection& connection, uint64_t request, std::string_view body);
  void on_exit_of(uint64_t id);
  void end(const std::shared_ptr<Connection>& connection);
  int next_timeout_ms();
  void drop_overdue();
  void watch_fd(int fd, uint64_t id, uint32_t events = 1 /* EPOLLIN */);
  void watch_exit(const std::shared_ptr<PeerState>& peer);

  const Options options_;
  Handler& handler_;
  const pid_t pid_;
  Identity identity_;
  Listener listener_;
  Fd unix_listener_, epoll_, wake_;
  std::thread thread_;
  std::atomic<bool> closing_{false};

  mutable std::mutex mutex_;
  std::condition_variable dialled_;
  std::set<std::string> dialling_;
  std::map<PeerKey, std::shared_ptr<PeerState>> peers_;
  std::map<uint64_t, std::shared_ptr<Connection>> connections_;
  std::map<uint64_t, std::pair<Fd, std::weak_ptr<PeerState>>> exits_;  ///< pidfds of peers on this host
  std::atomic<uint64_t> next_id_{16};

  // control thread only
  std::map<uint64_t, Incoming> incoming_;
  Deadline accept_again_ = Deadline::max();

  std::atomic<uint64_t> accepted_{0}, refused_{0}, frames_in_{0}, malformed_{0}, handler_errors_{0}, lost_{0};
};

}  // namespace mori::io::control
