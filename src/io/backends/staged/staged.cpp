// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Who looks after the jobs that go through chunks: the submitter starts them, a waiter lends itself to them
// and to the inner backend, and one thread looks while a GPU copies for one of them or an inner job has
// ended.
#include "src/io/backends/staged/staged.hpp"

#include <algorithm>
#include <condition_variable>
#include <thread>
#include <utility>

#include "src/core/errors.hpp"
#include "src/io/backends/staged/carry.hpp"
#include "src/io/threads.hpp"

namespace mori::io::staged {
namespace {

using std::chrono::microseconds;

constexpr double kCopyLatencyUs = 15;
constexpr double kCopyBytesPerSecond = 40e9;
constexpr microseconds kHelp{300};  ///< of a waiter's time, then it looks at its own deadline
constexpr std::chrono::milliseconds kLongestSpin{50};  ///< of a waiter, for the GPU's copies
constexpr microseconds kLook{40};
constexpr microseconds kLongestLook{1000};

using CarryPtr = std::shared_ptr<Carry>;

class Staged final : public Backend {
 public:
  Staged(std::unique_ptr<Backend> inner, const P2pOptions& options)
      : inner_(std::move(inner)), staging_(options) {}
  ~Staged() override {
    {
      const std::lock_guard lock(mutex_);
      quit_ = true;
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
    inner_.reset();  // its threads may still be leaving finish()
  }

  std::string_view name() const override { return inner_->name(); }
  std::optional<std::string> attach(const Region& region) override { return inner_->attach(region); }
  bool eager_attach() const override { return inner_->eager_attach(); }
  void detach(const Region& region) override { inner_->detach(region); }
  std::string answer(Peer& peer, std::string_view request, std::vector<Fd>& pass) override {
    return inner_->answer(peer, request, pass);
  }
  void told(Peer& peer, std::string_view message) override { inner_->told(peer, message); }
  void accepted(Peer& peer, Stream stream) override { inner_->accepted(peer, std::move(stream)); }

  Prepared prepare(const Region& local, const RemoteRegion& remote, Peer& peer, const std::string& attachment,
                   Deadline deadline) override {
    if (local.location != Location::gpu) return inner_->prepare(local, remote, peer, attachment, deadline);
    try {
      staging_.check(local);
    } catch (const core::Error& error) {
      return {.reason = error.what()};
    }
    Region chunk = local;
    chunk.location = Location::cpu;
    chunk.device = -1;
    Prepared found = inner_->prepare(chunk, remote, peer, attachment, deadline);
    if (found.route == nullptr) return found;
    found.route = std::make_shared<StagedRoute>(std::move(found.route));
    found.latency_us += kCopyLatencyUs;
    found.bytes_per_second = std::min(found.bytes_per_second, kCopyBytesPerSecond);
    found.reason = "by way of host memory" + (found.reason.empty() ? "" : ", " + found.reason);
    return found;
  }

  void submit(JobPtr job) override {
    if (job->local().location != Location::gpu) return inner_->submit(std::move(job));
    const auto carry = std::make_shared<Carry>(std::move(job), *inner_, staging_, [this] { look_soon(); });
    bool refused;
    {
      const std::lock_guard lock(mutex_);
      refused = static_cast<StagedRoute&>(*carry->route).revoked;
      carries_.push_back(carry);
      if (!thread_.joinable()) thread_ = start_thread("mori-io-staged", [this] { look_after_jobs(); });
    }
    if (refused) carry->stop(StatusCode::err_not_found, "the memory is going away", false);
    look_at(carry);
    if (carry->wants_looks()) look_soon();
  }

  bool help(Job& job) override {
    if (job.local().location != Location::gpu) return inner_->help(job);
    const auto until = Clock::now() + kHelp;
    for (;;) {
      const CarryPtr carry = find(job);
      if (carry == nullptr || look_at(carry)) return true;
      bool helped = false;
      for (const auto& inner : carry->inner_jobs())
        helped |= inner->ended() == nullptr && inner_->help(*inner);
      const auto now = Clock::now();
      const bool looks = carry->wants_looks() && now < carry->submitted + kLongestSpin;
      if (!helped && !looks) return false;
      if (now > until) return true;
      std::this_thread::yield();
    }
  }

  void nudge(Job& job) override {
    if (job.local().location != Location::gpu) return inner_->nudge(job);
    if (const CarryPtr carry = find(job)) nudge(*carry);
  }

  void revoke(Route& route) override {
    auto* const mine = dynamic_cast<StagedRoute*>(&route);
    if (mine == nullptr) return inner_->revoke(route);
    {
      const std::lock_guard lock(mutex_);
      mine->revoked = true;
    }
    const auto its = [&](const CarryPtr& carry) { return carry->route.get() == &route; };
    for (const CarryPtr& carry : all()) {
      if (!its(carry)) continue;
      carry->stop(StatusCode::err_not_found, "the memory was deregistered during the transfer", false);
      nudge(*carry);
    }
    inner_->revoke(*mine->inner);
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return std::none_of(carries_.begin(), carries_.end(), its); });
  }

  void lost(Peer& peer) override {
    for (const CarryPtr& carry : all()) {
      if (carry->peer == &peer) {
        carry->stop(StatusCode::err_peer_lost, "engine '" + peer.engine() + "' is gone", false);
      }
    }
    inner_->lost(peer);
    look_soon();
  }

  std::vector<std::pair<std::string, double>> counters() const override {
    auto all = inner_->counters();
    const std::lock_guard lock(mutex_);
    all.emplace_back("staged_jobs", double(jobs_));
    all.emplace_back("staged_bytes", double(bytes_));
    return all;
  }

 private:
  void nudge(const Carry& carry) {
    for (const auto& inner : carry.inner_jobs()) {
      if (inner->ended() == nullptr) inner_->nudge(*inner);
    }
    look_soon();
  }

  std::vector<CarryPtr> all() const {
    const std::lock_guard lock(mutex_);
    return carries_;
  }

  CarryPtr find(const Job& job) const {
    const std::lock_guard lock(mutex_);
    const auto found = std::find_if(carries_.begin(), carries_.end(),
                                    [&](const CarryPtr& carry) { return carry->job.get() == &job; });
    return found == carries_.end() ? nullptr : *found;
  }

  /// Advances a job, and reports it when it has ended.
  bool look_at(const CarryPtr& carry) {
    if (!carry->advance()) return false;
    Outcome outcome = carry->outcome();
    const uint64_t bytes = carry->job->bytes();
    carry->job->finish(std::move(outcome));
    {
      const std::lock_guard lock(mutex_);
      std::erase(carries_, carry);
      ++jobs_;
      bytes_ += bytes;
    }
    changed_.notify_all();
    return true;
  }

  void look_soon() {
    {
      const std::lock_guard lock(mutex_);
      look_ = true;
    }
    changed_.notify_all();
  }

  void look_after_jobs() {
    std::unique_lock lock(mutex_);
    while (!quit_) {
      const std::vector<CarryPtr> now = carries_;
      look_ = false;
      lock.unlock();
      auto pause = kLongestLook;
      bool looks = false;
      for (const CarryPtr& carry : now) {
        if (look_at(carry) || !carry->wants_looks()) continue;
        looks = true;
        const auto age = std::chrono::duration_cast<microseconds>(Clock::now() - carry->submitted);
        pause = std::min(pause, std::clamp(age / 8, kLook, kLongestLook));
      }
      lock.lock();
      const auto due = [&] { return look_ || quit_; };
      if (looks) {
        changed_.wait_for(lock, pause, due);
      } else {
        changed_.wait(lock, due);
      }
    }
  }

  std::unique_ptr<Backend> inner_;
  Staging staging_;
  mutable std::mutex mutex_;  ///< of what follows, and of StagedRoute::revoked
  std::condition_variable changed_;
  std::vector<CarryPtr> carries_;
  uint64_t jobs_ = 0, bytes_ = 0;
  bool look_ = false, quit_ = false;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<Backend> stage(std::unique_ptr<Backend> inner, const P2pOptions& options) {
  return std::make_unique<Staged>(std::move(inner), options);
}

}  // namespace mori::io::staged
