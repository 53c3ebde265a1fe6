// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The initiator's streams to one peer and who drives them. Small jobs run in the submitter and in the waiting
// caller, without any other thread; the I/O thread takes over what nobody waits for.
#pragma once
#include <array>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>

#include "src/io/backends/tcp/books.hpp"
#include "src/io/backends/tcp/outlet.hpp"
#include "src/io/worker.hpp"

namespace mori::io::tcp {

constexpr size_t kMaxStreams = 16;

struct Settings {
  size_t streams = 2;
  int retries = 3;                       ///< times that streams may break in a row with nothing confirmed
  std::chrono::milliseconds grace{100};  ///< a stopped job waits so long for the owner's word, then cuts
  std::chrono::milliseconds connect{5000};
};

class Pair : public std::enable_shared_from_this<Pair> {
 public:
  Pair(Peer& peer, const Settings& settings, Loop& loop, Worker& worker, Counters& counters)
      : settings_(settings), loop_(loop), worker_(worker), counters_(counters), peer_(&peer) {}

  /// The same engine's connection may have come back as another object.
  void set_peer(Peer& peer) { peer_ = &peer; }
  /// Opens the streams that are missing. Throws as Peer::open_stream.
  void open(Deadline deadline);
  void submit(const JobPtr& job);
  bool help(const WorkPtr& work);
  WorkPtr find(const Job& job) const { return books_.find(job); }
  /// Looks at every job's stopping().
  void check_stopping();
  void stop(const WorkPtr& work, StatusCode code, const std::string& words);
  /// Stops the jobs of a route and waits until they are over.
  void revoke(const Route& route);
  void lost(const std::string& reason);
  void on_ready(Outlet& outlet);

 private:
  using Outlets = std::array<std::shared_ptr<Outlet>, kMaxStreams>;
  Outlets outlets() const;
  /// Drives with the mutex held by `lock`, releases it, tells what is over.
  bool drive(Outlet& outlet, std::unique_lock<std::mutex> lock, uint64_t budget);
  void finish_ready();
  void cut_overdue(const WorkPtr& work);
  void open_missing(Deadline deadline);
  void reopen();
  void try_open(int attempt);
  void broke(const Outlet& outlet);

  const Settings& settings_;
  Loop& loop_;
  Worker& worker_;
  Counters& counters_;
  Books books_;
  std::atomic<Peer*> peer_;
  bool is_opening_ = false;  ///< one thread at a time opens streams
  std::condition_variable opened_;
  mutable std::mutex mutex_;
  Outlets outlets_;
  std::atomic<int> helpers_{0};
  std::atomic<bool> opening_{false};
  std::atomic<int> failures_{0};
};

}  // namespace mori::io::tcp
