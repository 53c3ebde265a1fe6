// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// What this engine knows of another one, (key, incarnation): its connections, the questions that await an
// answer, the regions that it opened here, and the notifications that it has not confirmed. Survives a broken
// connection, so that notifications are delivered once when it comes back.
//
// Usually one connection; two when both sides dialled at the same moment. Each side sends on its first one
// and reads both, so nothing has to be agreed; when one breaks, all are cut.
#pragma once
#include <atomic>
#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>

#include "src/io/control/connection.hpp"
#include "src/io/control/control.hpp"

namespace mori::io::control {

/// A question under way.
struct Request {
  enum class State { waiting, answered, refused, lost };
  std::condition_variable changed;  ///< with the peer's mutex
  State state = State::waiting;
  StatusCode code = StatusCode::success;
  std::string text;  ///< the answer, or words
  std::vector<Fd> fds;
  uint64_t opening = 0;  ///< region that it asks for
  bool revoked = false;  ///< the owner took that region back meanwhile
};

/// What a peer needs of the control plane that made it.
class Dialler {
 public:
  virtual ~Dialler() = default;
  virtual Stream dial_stream(PeerState& peer, std::string_view backend, Deadline deadline) = 0;
  /// Throws where waiting is not possible: on the control thread, in a forked child.
  virtual void check_may_wait(const char* what) const = 0;
};

class PeerState final : public Peer, public std::enable_shared_from_this<PeerState> {
 public:
  PeerState(std::string engine, uint64_t incarnation, std::string address, std::weak_ptr<Dialler> dialler)
      : engine_(std::move(engine)),
        incarnation_(incarnation),
        address_(std::move(address)),
        dialler_(std::move(dialler)) {}

  const std::string& engine() const override { return engine_; }
  uint64_t incarnation() const override { return incarnation_; }
  bool same_host() const override { return pid_.load() > 0; }
  int64_t pid() const override { return pid_.load(); }
  const std::string& address() const override { return address_; }
  std::string ask(std::string_view backend, std::string_view request, Deadline deadline,
                  std::vector<Fd>* fds) override;
  bool tell(std::string_view backend, std::string_view message) override;
  Stream open_stream(std::string_view backend, Deadline deadline) override;

  std::string name() const;  ///< for messages
  bool connected() const;
  /// Nothing would be missed if it were forgotten: the numbers of its notifications must go on.
  bool disposable() const;
  /// One request frame and its answer. `body` follows the request's number. Throws as ask().
  std::string request(Type type, std::string_view body, Deadline deadline, const std::string& what,
                      std::vector<Fd>* fds = nullptr, uint64_t opening = 0);
  /// The two halves of it, to ask several peers at once. Null: not connected.
  std::shared_ptr<Request> start(Type type, std::string_view body, uint64_t opening = 0,
                                 uint64_t* number = nullptr);
  bool wait(const std::shared_ptr<Request>& request, Deadline deadline);
  void forget(uint64_t number);

  void notify(uint64_t uid, StatusCode code, std::string_view message);
  void cut(const std::string& reason);
  bool send(Type type, std::string_view payload);

  // ---- control thread, except adopt()
  void adopt(std::shared_ptr<Connection> connection, int64_t pid);
  void answered(uint64_t number, Request::State state, StatusCode code, std::string text,
                std::vector<Fd> fds);
  /// A connection broke: takes all of them out, fails the requests. False if that had happened before.
  bool lose(const Connection& broken, const std::string& reason);
  /// Whether this notification is to be delivered.
  bool first_time(uint64_t number);
  void confirmed(uint64_t number);
  void mark_revoked(uint64_t region);

  /// Regions of this engine that the peer opened, and where it listens.
  mutable std::mutex mutex;
  std::set<uint64_t> opened;
  std::string dial_host;
  uint16_t dial_port = 0;

 private:
  struct Notice {
    uint64_t number;
    std::string payload;
  };
  const std::string engine_;
  const uint64_t incarnation_;
  const std::string address_;
  const std::weak_ptr<Dialler> dialler_;
  std::atomic<int64_t> pid_{-1};
  std::vector<std::shared_ptr<Connection>> connections_;
  std::map<uint64_t, std::shared_ptr<Request>> requests_;
  uint64_t next_request_ = 1;
  std::string lost_reason_ = "not connected";
  std::deque<Notice> unconfirmed_;
  size_t unconfirmed_bytes_ = 0;
  uint64_t last_notice_ = 0;       ///< sent
  uint64_t delivered_notice_ = 0;  ///< received
};

}  // namespace mori::io::control
