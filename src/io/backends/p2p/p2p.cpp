// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Which memories p2p reaches, and who looks at the jobs under way: the submitter queues the first windows, a
// waiter looks for 50 us and as long as the bytes may take, at most 1 ms (spinning: a sleep ends 60 us late,
// in which a link moves 20 MB), and one thread looks from then on, the less often the longer a job takes. The
// thread sleeps while there are no jobs.
#include "src/io/backends/p2p/p2p.hpp"

#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <list>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "src/core/runtime/gpu_device.hpp"
#include "src/io/backends/p2p/p2p_memory.hpp"
#include "src/io/backends/p2p/p2p_worker.hpp"
#include "src/io/threads.hpp"

namespace mori::io {
namespace {

using namespace p2p;
using std::chrono::microseconds;

constexpr microseconds kSpin{50};
constexpr microseconds kLongestSpin{1000};
constexpr uint64_t kSpinBytesPerUs = 100'000;  ///< slower than any link between GPUs
constexpr microseconds kLongestSleep{500};
constexpr microseconds kMayBeLate{200};  ///< until the thread first looks at a job that nobody waits for
constexpr uint32_t kIdleLooks = 10;
constexpr double kLatencyUs = 6, kHostLatencyUs = 9;
constexpr double kLinkBytesPerSecond = 200e9, kHostBytesPerSecond = 20e9;

class P2pBackend final : public Backend {
 public:
  explicit P2pBackend(P2pOptions options) : options_(std::move(options)), gpus_(options_) {}
  ~P2pBackend() override {
    {
      const std::lock_guard lock(mutex_);
      quit_ = true;
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
  }

  std::string_view name() const override { return "p2p"; }

  std::optional<std::string> attach(const Region& region) override {
    if (region.location != Location::gpu) return std::nullopt;
    return attach_gpu(*gpus_.open(region.device), region);
  }

  Prepared prepare(const Region& local, const RemoteRegion& remote, Peer& peer, const std::string& attachment,
                   Deadline) override {
    Prepared out;
    const bool local_gpu = local.location == Location::gpu, remote_gpu = remote.location == Location::gpu;
    if (local.location == Location::file || remote.location == Location::file) {
      out.reason = "it moves memory, not files";
    } else if (!local_gpu && !remote_gpu) {
      out.reason = "neither memory is a GPU's";
    } else if (!peer.same_host()) {
      out.reason = "the peer runs on another host, or cannot be proven to run on this one";
    } else {
      try {
        auto route = std::make_shared<P2pRoute>(remote, peer.pid() == ::getpid(), attachment);
        route->address(executor(local, *route), pins_);
        const bool host = !local_gpu || !remote_gpu;
        out.latency_us = host ? kHostLatencyUs : kLatencyUs;
        out.bytes_per_second = host ? kHostBytesPerSecond : kLinkBytesPerSecond;
        out.route = std::move(route);
      } catch (const core::Error& error) {
        out.reason = error.what();
      }
    }
    return out;
  }

  void submit(JobPtr job) override {
    auto& route = static_cast<P2pRoute&>(job->route());
    std::unique_ptr<Carry> carry;
    try {
      carry = begin(job, route);
    } catch (const core::Error& error) {
      return refuse(*job, StatusCode::err_gpu_op, error.what(), true);
    }
    bool wake = false;
    {
      const std::lock_guard lock(mutex_);
      if (!route.use->revoked) {
        ++route.use->jobs;
        carry->use = route.use;
        carry->advance(counters_);
        carry->next_look = carry->submitted + kSpin;
        wake = thread_wakes_ > carry->submitted + kMayBeLate;
        carries_.push_back(std::move(carry));
        if (!thread_.joinable()) thread_ = start_thread("mori-io-p2p", [this] { look_after_jobs(); });
      }
    }
    if (carry != nullptr) return refuse(*job, StatusCode::err_not_found, "the memory is going away", false);
    if (wake) changed_.notify_all();  // behind the queueing: the GPU works while the thread wakes
  }

  bool help(Job& job) override {
    const microseconds spin = std::min(kLongestSpin, kSpin + microseconds(job.bytes() / kSpinBytesPerUs));
    for (;;) {
      std::unique_lock lock(mutex_);
      const auto found = find(job);
      if (found == carries_.end()) return true;
      if (Clock::now() - (*found)->submitted > spin) return false;
      if ((*found)->advance(counters_)) {
        end(found, lock);
        return true;
      }
      lock.unlock();
      std::this_thread::yield();
    }
  }

  void nudge(Job& job) override {
    {
      const std::lock_guard lock(mutex_);
      const auto found = find(job);
      if (found != carries_.end()) (*found)->next_look = {};
    }
    changed_.notify_all();
  }

  void revoke(Route& route) override {
    auto& mine = static_cast<P2pRoute&>(route);
    {
      std::unique_lock lock(mutex_);
      mine.use->revoked = true;
      for (const auto& carry : carries_) {
        if (carry->use != mine.use) continue;
        carry->stop(StatusCode::err_not_found, "the memory was deregistered during the transfer", false);
        carry->next_look = {};
      }
      changed_.notify_all();
      changed_.wait(lock, [&] { return mine.use->jobs == 0; });
    }
    mine.close();
  }

  void lost(Peer& peer) override {
    {
      const std::lock_guard lock(mutex_);
      for (const auto& carry : carries_) {
        if (&carry->job()->peer() != &peer) continue;
        carry->stop(StatusCode::err_peer_lost, "engine '" + peer.engine() + "' is gone", false);
        carry->next_look = {};
      }
    }
    changed_.notify_all();
  }

  void detach(const Region& region) override {
    const std::lock_guard lock(pinned_mutex_);
    pinned_.erase(region.id);
  }

  std::vector<std::pair<std::string, double>> counters() const override {
    const std::lock_guard lock(mutex_);
    return {{"kernel_launches", double(counters_.launches)},
            {"copies", double(counters_.copies)},
            {"bytes", double(counters_.bytes)},
            {"jobs_in_flight", double(carries_.size())}};
  }

 private:
  using Carries = std::list<std::unique_ptr<Carry>>;

  /// The GPU that moves the bytes: the initiator's, which pushes on a write, or else the other one.
  std::shared_ptr<core::Device> executor(const Region& local, const P2pRoute& route) {
    if (local.location == Location::gpu) return gpus_.open(local.device);
    const int ordinal = gpus_.at(route.bus_id());
    if (ordinal < 0) {
      throw core::TransportError("this process does not see the peer's GPU at " + route.bus_id());
    }
    return gpus_.open(ordinal);
  }

  std::unique_ptr<Carry> begin(const JobPtr& job, P2pRoute& route) {
    const Region& local = job->local();
    const auto device = executor(local, route);
    const bool local_gpu = local.location == Location::gpu;
    std::shared_ptr<Pin> pin;
    if (!local_gpu) {
      const std::lock_guard lock(pinned_mutex_);
      std::shared_ptr<Pin>& known = pinned_[local.id];
      if (known == nullptr) known = pins_.pin(device, local.address, local.bytes);
      pin = known;
    }
    const uint64_t there = route.address(device, pins_);
    const uint64_t here = pin == nullptr ? local.address : pin->on_gpu(local.address);
    const bool kernel =
        by_kernel(options_, job->segments().size(), job->bytes(), local_gpu && route.on_gpu());
    auto carry = std::make_unique<Carry>(job, worker(device), here, there, kernel);
    carry->pin = std::move(pin);
    return carry;
  }

  Worker& worker(const std::shared_ptr<core::Device>& device) {
    const std::lock_guard lock(mutex_);
    std::unique_ptr<Worker>& found = workers_[device->ordinal()];
    if (found == nullptr) found = std::make_unique<Worker>(device, options_);
    return *found;
  }

  static void refuse(Job& job, StatusCode code, std::string message, bool reroutable) {
    Outcome outcome{.code = code, .message = std::move(message), .reroutable = reroutable, .unfinished = {}};
    outcome.unfinished.assign(job.segments().begin(), job.segments().end());
    job.finish(std::move(outcome));
  }

  Carries::iterator find(const Job& job) {
    return std::find_if(carries_.begin(), carries_.end(),
                        [&](const auto& carry) { return carry->job().get() == &job; });
  }

  /// Takes the job out and reports it, without the lock: the engine may submit from there.
  void end(Carries::iterator found, std::unique_lock<std::mutex>& lock) {
    std::unique_ptr<Carry> carry = std::move(*found);
    carries_.erase(found);
    const JobPtr job = carry->job();
    const std::shared_ptr<P2pRoute::Use> use = carry->use;
    Outcome outcome = carry->outcome();
    carry.reset();
    lock.unlock();
    job->finish(std::move(outcome));
    lock.lock();
    if (--use->jobs == 0 && use->revoked) changed_.notify_all();
    lock.unlock();
  }

  void look_after_jobs() {
    std::unique_lock lock(mutex_);
    uint32_t idle_looks = 0;
    for (;;) {
      if (carries_.empty()) {
        if (quit_) return;
        // For some time after a job the thread wakes by itself: waking it would cost each submitter 2 us.
        if (idle_looks < kIdleLooks) {
          ++idle_looks;
          sleep_until(Clock::now() + kMayBeLate, lock);
        } else {
          sleep_until(Clock::time_point::max(), lock);
        }
        continue;
      }
      idle_looks = 0;
      const Clock::time_point now = Clock::now();
      Clock::time_point next = now + kLongestSleep;
      for (auto at = carries_.begin(); at != carries_.end();) {
        Carry& carry = **at;
        if (carry.next_look <= now) {
          if (carry.advance(counters_)) {
            end(at, lock);
            lock.lock();
            at = carries_.begin();  // the list may have changed meanwhile
            continue;
          }
          const auto age = std::chrono::duration_cast<microseconds>(now - carry.submitted);
          carry.next_look = now + std::clamp(age / 8, kSpin / 2, kLongestSleep);
        }
        next = std::min(next, carry.next_look);
        ++at;
      }
      if (!carries_.empty()) sleep_until(next, lock);
    }
  }

  void sleep_until(Clock::time_point when, std::unique_lock<std::mutex>& lock) {
    thread_wakes_ = when;
    if (when == Clock::time_point::max()) {
      changed_.wait(lock);
    } else {
      changed_.wait_until(lock, when);
    }
    thread_wakes_ = {};  // it is awake
  }

  const P2pOptions options_;
  Gpus gpus_;
  Pins pins_;
  std::mutex pinned_mutex_;
  std::map<uint64_t, std::shared_ptr<Pin>> pinned_;  ///< of local host regions, by id

  mutable std::mutex mutex_;  ///< of all below, of Carry and Worker, and of users and revoked in P2pRoute
  std::condition_variable changed_;
  Carries carries_;
  std::map<int, std::unique_ptr<Worker>> workers_;
  Counters counters_;
  bool quit_ = false;
  Clock::time_point thread_wakes_{};
  std::thread thread_;
};

}  // namespace

bool p2p::by_kernel(const P2pOptions& options, uint64_t segments, uint64_t bytes, bool both_gpu) {
  if (segments == 1) return bytes < options.single_kernel_below_bytes;
  return bytes / segments < (both_gpu ? options.kernel_below_bytes : options.host_kernel_below_bytes);
}

std::unique_ptr<Backend> p2p::make_p2p(P2pOptions options) {
  return std::make_unique<P2pBackend>(std::move(options));
}

std::unique_ptr<Backend> p2p::make_backend(Host&, const BackendOptions& options) {
  P2pOptions p2p;
  const std::string kind = options.text("kind", "");
  if (kind == "cuda") p2p.kind = core::Kind::cuda;
  if (kind == "hip") p2p.kind = core::Kind::hip;
  if (!kind.empty() && !p2p.kind) throw core::ConfigError("kind='" + kind + "' is not one of cuda, hip");
  p2p.kernel_dir = options.text("kernel_dir", "");
  p2p.blocks = uint32_t(options.integer("blocks", p2p.blocks, 1, 65535));
  const auto bytes = [&](const char* option, uint64_t& field) {
    field = uint64_t(options.integer(option, int64_t(field), 0, INT64_MAX));
  };
  bytes("kernel_below_bytes", p2p.kernel_below_bytes);
  bytes("host_kernel_below_bytes", p2p.host_kernel_below_bytes);
  bytes("single_kernel_below_bytes", p2p.single_kernel_below_bytes);
  const int64_t marks = options.integer("kernel_marks", -1, -1, 1);
  if (marks >= 0) p2p.kernel_marks = marks == 1;
  return make_p2p(std::move(p2p));
}

}  // namespace mori::io
