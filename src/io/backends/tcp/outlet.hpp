// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The initiator's end of a stream: sends requests and writes' payload, receives replies and reads' payload,
// straight from and to the registered memory. Whoever has time drives it, one at a time (`mutex`): the
// submitter, a waiting caller, the I/O thread. Nothing here blocks.
#pragma once
#include <deque>
#include <memory>
#include <mutex>
#include <optional>

#include "src/io/backends/tcp/books.hpp"
#include "src/io/backends/tcp/inlet.hpp"
#include "src/io/backends/tcp/loop.hpp"

namespace mori::io::tcp {

class Pair;

class Outlet final : public Source {
 public:
  Outlet(Stream stream, std::weak_ptr<Pair> pair, Books& books, Loop& loop, Counters& counters,
         size_t streams)
      : pair_(std::move(pair)),
        books_(books),
        loop_(loop),
        counters_(counters),
        streams_(streams),
        stream_(std::move(stream)) {}

  void enter(const std::shared_ptr<Outlet>& self);
  void ready(uint32_t events) override;

  std::mutex mutex;
  // ---- with the mutex
  /// Moves what can be moved, about `budget` bytes. Whether anything did.
  bool drive(uint64_t budget);
  bool broken() const { return broken_; }
  bool used() const { return confirmed_; }  ///< it confirmed something since it was opened
  const std::string& reason() const { return reason_; }
  bool idle() const { return sent_.empty() && !sending_; }
  bool holds(const Work& work) const;
  /// The memory of a stopped read is not touched from here on; its payload is thrown away.
  void orphan_reads(const Work& work);
  /// Resets the connection: what the owner has not taken yet, it throws away.
  void cut(const std::string& reason);
  /// Asks the I/O thread to look when something happens. Once: it forgets.
  void arm();
  void disarm();
  void forget_armed();  ///< the I/O thread was told
  /// poll() events to wait for; 0 = nothing to wait for.
  short waits_for() const;
  int fd() const { return stream_.fd.get(); }

 private:
  bool receive(uint64_t& budget);
  bool receive_payload(Frame& frame);
  void answered();  ///< the first of sent_
  bool send(uint64_t& budget);
  bool next_frame();
  void fail(const std::string& reason);

  const std::weak_ptr<Pair> pair_;
  Books& books_;
  Loop& loop_;
  Counters& counters_;
  const size_t streams_;
  Stream stream_;
  uint64_t loop_number_ = 0;
  uint32_t armed_ = 0;
  bool broken_ = false, confirmed_ = false;
  std::string reason_;

  uint64_t next_number_ = 0;
  std::optional<Frame> sending_;
  std::deque<Frame> sent_;  ///< await their reply, in order
  std::string in_ = std::string(kReplyBytes, '\0');
  size_t have_ = 0;
  std::optional<Reply> reply_;  ///< whose payload or words are on their way
};

}  // namespace mori::io::tcp
