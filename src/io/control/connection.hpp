// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// One authenticated socket of the control plane: seals and queues what any thread sends, opens what the
// control thread receives. A break is seen in one place only, the control thread: cut() shuts the socket
// down, which wakes it.
#pragma once
#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "src/io/control/frame.hpp"

namespace mori::io::control {

class PeerState;

class Connection {
 public:
  Connection(Fd fd, const MacKey& send_key, const MacKey& receive_key, bool unix_socket, uint64_t number,
             int epoll)
      : id(number),
        is_unix(unix_socket),
        fd_(std::move(fd)),
        epoll_(epoll),
        send_key_(send_key),
        parser_(receive_key) {}

  /// Any thread. Sends at once what the socket takes and queues the rest. False: broken.
  bool send(Type type, std::string_view payload, std::vector<Fd> fds = {});
  /// Any thread. The control thread ends the connection soon; the first reason is kept.
  void cut(const std::string& reason);
  bool broken() const { return broken_.load(std::memory_order_acquire); }
  std::string reason() const;

  // ---- control thread
  /// Adds it to the epoll set.
  void watch();
  /// What the socket takes of the queue.
  void flush();
  /// Hands over all complete frames. False at the end of the stream or after a malformed frame.
  bool receive(const std::function<void(Frame&)>& take);
  /// No further use of the descriptor.
  void close();

  const uint64_t id;
  const bool is_unix;
  std::weak_ptr<PeerState> peer;

 private:
  struct Out {
    std::string bytes;
    size_t sent = 0;
    std::vector<Fd> fds;
  };
  /// True when the queue is empty. With mutex_ held.
  bool push();
  void want_writable(bool wanted);

  mutable std::mutex mutex_;
  Fd fd_;
  int epoll_;
  MacKey send_key_;
  uint64_t send_sequence_ = 0;
  std::deque<Out> queue_;
  size_t queued_bytes_ = 0;
  bool wants_writable_ = false;
  std::string reason_;
  std::atomic<bool> broken_{false};
  Parser parser_;
};

}  // namespace mori::io::control
