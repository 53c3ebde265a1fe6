// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/backends/tcp/tcp.hpp"

#include <algorithm>
#include <map>
#include <mutex>

#include "src/io/backends/tcp/inlet.hpp"
#include "src/io/backends/tcp/pair.hpp"

namespace mori::io::tcp {
namespace {

constexpr size_t kMaxInlets = 64;  ///< streams of one peer

class TcpRoute final : public Route {
 public:
  explicit TcpRoute(std::shared_ptr<Pair> owned) : pair(std::move(owned)) {}
  const std::shared_ptr<Pair> pair;
};

Pair& pair_of(Job& job) { return *static_cast<TcpRoute&>(job.route()).pair; }

class Tcp final : public Backend {
 public:
  Tcp(Host& host, const BackendOptions& options) : host_(host) {
    settings_.streams = static_cast<size_t>(options.integer("streams", 2, 1, kMaxStreams));
    settings_.retries = static_cast<int>(options.integer("retries", 3, 0, 100));
    settings_.grace = std::chrono::milliseconds(options.integer("grace_ms", 100, 0, 60'000));
    settings_.connect = std::chrono::milliseconds(options.integer("connect_ms", 5000, 1, 600'000));
  }
  ~Tcp() override {
    worker_.stop();
    loop_.stop();
  }

  std::string_view name() const override { return "tcp"; }

  std::optional<std::string> attach(const Region& region) override {
    if (region.location == Location::gpu) {
      staging_.check(region);
    } else if (region.location != Location::cpu) {
      return std::nullopt;
    }
    return "1";  // the owner checks every request itself: there is nothing to hand out
  }

  Prepared prepare(const Region& local, const RemoteRegion& remote, Peer& peer, const std::string& attachment,
                   Deadline deadline) override {
    Prepared prepared;
    if (local.location != Location::cpu ||
        (remote.location != Location::cpu && remote.location != Location::gpu)) {
      prepared.reason = "tcp moves memory, not files";
    } else if (attachment != "1") {
      prepared.reason = "the peer's engine has no tcp backend";
    } else {
      const auto pair = pair_to(peer);
      pair->open(deadline);
      prepared.route = std::make_shared<TcpRoute>(pair);
      prepared.latency_us = 15;
      prepared.bytes_per_second = 5e9;
    }
    return prepared;
  }

  void submit(JobPtr job) override { pair_of(*job).submit(job); }

  bool help(Job& job) override {
    Pair& pair = pair_of(job);
    const auto work = pair.find(job);
    return !work || pair.help(work);
  }

  void nudge(Job& job) override {
    loop_.post([pair = static_cast<TcpRoute&>(job.route()).pair] { pair->check_stopping(); });
  }

  void revoke(Route& route) override { static_cast<TcpRoute&>(route).pair->revoke(route); }

  void accepted(Peer& from, Stream stream) override {
    auto inlet = std::make_shared<Inlet>(host_, std::move(stream), loop_, staging_, counters_, from.engine(),
                                         from.incarnation());
    std::lock_guard lock(mutex_);
    std::erase_if(inlets_, [](const auto& old) { return old.expired(); });
    const auto its = [&](const auto& weak) {
      const auto old = weak.lock();
      return old && !old->over() && old->engine == from.engine();
    };
    if (std::count_if(inlets_.begin(), inlets_.end(), its) >= static_cast<ptrdiff_t>(kMaxInlets)) return;
    inlet->enter(inlet);
    inlets_.push_back(inlet);
  }

  void lost(Peer& peer) override {
    std::shared_ptr<Pair> pair;
    {
      std::lock_guard lock(mutex_);
      for (const auto& weak : inlets_) {
        const auto inlet = weak.lock();
        if (inlet && inlet->engine == peer.engine() && inlet->incarnation == peer.incarnation())
          inlet->kill();
      }
      const auto found = pairs_.find({peer.engine(), peer.incarnation()});
      if (found != pairs_.end()) pair = found->second;
    }
    if (pair) pair->lost("its control connection broke");
  }

  std::vector<std::pair<std::string, double>> counters() const override {
    const auto value = [](const std::atomic<uint64_t>& number) { return static_cast<double>(number.load()); };
    return {{"frames_sent", value(counters_.frames_sent)},
            {"frames_again", value(counters_.frames_again)},
            {"frames_served", value(counters_.frames_served)},
            {"frames_refused", value(counters_.frames_refused)},
            {"bytes_received", value(counters_.bytes_in)},
            {"bytes_sent", value(counters_.bytes_out)},
            {"malformed", value(counters_.malformed)},
            {"streams_opened", value(counters_.streams_opened)},
            {"streams_broken", value(counters_.streams_broken)},
            {"streams_cut", value(counters_.streams_cut)}};
  }

 private:
  std::shared_ptr<Pair> pair_to(Peer& peer) {
    std::lock_guard lock(mutex_);
    auto& pair = pairs_[{peer.engine(), peer.incarnation()}];
    if (!pair) pair = std::make_shared<Pair>(peer, settings_, loop_, worker_, counters_);
    pair->set_peer(peer);
    return pair;
  }

  Host& host_;
  Settings settings_;
  Counters counters_;
  Staging staging_;
  Loop loop_;
  Worker worker_;
  std::mutex mutex_;
  std::map<std::pair<std::string, uint64_t>, std::shared_ptr<Pair>> pairs_;
  std::vector<std::weak_ptr<Inlet>> inlets_;  ///< the loop keeps them while they live
};

}  // namespace

std::unique_ptr<Backend> make_backend(Host& host, const BackendOptions& options) {
  return std::make_unique<Tcp>(host, options);
}

}  // namespace mori::io::tcp
