// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// A connection that a peer opened: its requests are executed here, in order, and answered.
#pragma once
#include <string>
#include <vector>

#include "src/core/fd.hpp"
#include "src/transport/ibgda/softnic/fault.hpp"
#include "src/transport/ibgda/tcp/landing.hpp"
#include "src/transport/ibgda/tcp/socket.hpp"
#include "src/transport/ibgda/tcp/wire.hpp"

namespace mori::ibgda::tcp {

/// Who lives here, and whom it knows.
struct House {
  uint32_t rank = 0, world = 0;
  Secret secret{};
  std::vector<Door> doors;   ///< of each rank; port 0: not known
  std::vector<bool> inside;  ///< ranks whose connection is here
};

class Guest {
 public:
  Guest(core::Fd fd, Clock::time_point patience) : fd_(std::move(fd)), patience_(patience) {}

  int fd() const { return fd_.get(); }
  bool known() const { return known_; }
  uint32_t rank() const { return rank_; }
  Clock::time_point patience() const { return patience_; }  ///< until when its hello must have come
  /// Which of EPOLLIN and EPOLLOUT it waits for.
  uint32_t wants() const;
  /// Whether it stopped in the middle because others have their turn.
  bool unfinished() const { return unfinished_; }
  /// Whether it has answers that the socket did not take.
  bool owes() const { return !outbox_.empty(); }
  /// Goes on with what came. Whether there was something. Throws Broken.
  bool work(const House& house, const Regions& regions);

 private:
  bool greet(const House& house);
  bool execute(const Regions& regions, uint64_t& budget);
  void read(const Request& request, const Regions& regions);
  void answer(Answer kind, uint32_t count, uint64_t word = 0, Fault fault = Fault::none);
  void over(Fault fault);
  bool full() const { return holding_ || outbox_.waiting() > kMostWaiting; }

  static constexpr uint64_t kMostWaiting = 256 << 10;  ///< bytes of answers behind which requests wait
  core::Fd fd_;
  Clock::time_point patience_;
  Inbox inbox_;
  Outbox outbox_;
  Landing landing_;
  RequestHead head_{};
  bool has_head_ = false;
  bool known_ = false, unfinished_ = false;
  bool holding_ = false;  ///< an answer is still read from memory: nothing may change it
  uint32_t rank_ = 0;
  uint32_t done_ = 0;          ///< writes that are done and not answered
  uint64_t dead_ = 0;          ///< lanes with a fault: nothing behind it is executed
  Fault fault_ = Fault::none;  ///< of the write that is landing
};

/// Compares in a time that does not depend on the bytes.
bool same(const Secret& left, const Secret& right);

}  // namespace mori::ibgda::tcp
