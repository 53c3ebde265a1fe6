// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The connection to a peer: this rank's requests to it, and its answers.
#pragma once
#include <deque>
#include <string>

#include "src/transport/ibgda/softnic/mover.hpp"
#include "src/transport/ibgda/tcp/guest.hpp"

namespace mori::ibgda::tcp {

class Caller {
 public:
  /// Dials and says hello. `who`: the peer in words. Throws TransportError.
  Caller(const House& house, uint32_t peer, std::string who, std::chrono::milliseconds timeout);

  int fd() const { return fd_.get(); }
  uint32_t wants() const;
  bool unfinished() const { return unfinished_; }
  /// Whether requests wait that the socket might take.
  bool eager() const { return fd_ && greeted_ && !outbox_.empty() && !blocked_; }
  bool overdue() const { return !flying_.empty() && Clock::now() - alive_ > timeout_; }
  /// Why the peer is lost; empty: it is not.
  const std::string& lost() const { return lost_; }

  Outcome submit(uint32_t queue, uint32_t lane, const Request& request);
  /// Goes on with what came, and sends. Whether there was something.
  bool work(const Regions& regions, const Mover::Finished& finished);
  void hang_up() { fd_.reset(); }

 private:
  struct Flying {
    uint32_t queue, lane, length, lkey;
    uint64_t local;
    Op op;
  };

  bool greet();
  bool hear(const Regions& regions, const Mover::Finished& finished, uint64_t& budget);
  void over(const Mover::Finished& finished, Fault fault);
  void lose(const Mover::Finished& finished, const std::string& why);

  static constexpr uint64_t kMostFlying = 1024;      ///< requests without an answer
  static constexpr uint64_t kMostWaiting = 4 << 20;  ///< bytes that the socket has not taken

  core::Fd fd_;
  uint32_t peer_;
  std::string who_;
  Secret own_;  ///< what the peer's hello says if it is the peer
  std::chrono::milliseconds timeout_;
  Clock::time_point alive_;  ///< when bytes went or came last, or the first request was submitted
  Inbox inbox_;
  Outbox outbox_;
  std::deque<Flying> flying_;
  Landing landing_;
  bool greeted_ = false, blocked_ = false, unfinished_ = false;
  uint64_t failed_ = 0;  ///< lanes of which nothing more is reported
  std::string lost_;
};

}  // namespace mori::ibgda::tcp
