// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/backends/loopback/loopback.hpp"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <mutex>
#include <random>
#include <thread>

#include "src/io/threads.hpp"

namespace mori::io::loopback {
namespace {

struct Settings {
  explicit Settings(const BackendOptions& o)
      : threaded(o.integer("mode", 0, 0, 1) == 1),
        chunk_bytes(uint64_t(o.integer("chunk_bytes", 1 << 20, 1, INT64_MAX))),
        delay(o.integer("delay_us", 0, 0, 60'000'000)),
        fault_permille(uint32_t(o.integer("fault_permille", 0, 0, 1000))),
        fail_jobs(o.integer("fail_jobs", 0, 0, INT32_MAX)),
        lose_jobs(o.integer("lose_jobs", 0, 0, INT32_MAX)),
        refuse(o.flag("refuse", false)),
        add(o.flag("add", false)),
        seed(uint64_t(o.integer("seed", 1, 0, INT64_MAX))) {}
  bool threaded;
  uint64_t chunk_bytes;
  std::chrono::microseconds delay;
  uint32_t fault_permille;
  int64_t fail_jobs;
  int64_t lose_jobs;
  bool refuse;
  bool add;
  uint64_t seed;
};

class Loopback final : public Backend {
 public:
  Loopback(std::string_view name, const Settings& settings)
      : name_(name),
        set_(settings),
        fail_jobs_(settings.fail_jobs),
        lose_jobs_(settings.lose_jobs),
        random_(set_.seed) {
    if (set_.threaded) thread_ = start_thread("mori-io-loop", [this] { run(); });
  }
  ~Loopback() override {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
      wake_.notify_one();
    }
    if (thread_.joinable()) thread_.join();
  }

  std::string_view name() const override { return name_; }
  std::optional<std::string> attach(const Region& region) override {
    if (region.location != Location::cpu) return std::nullopt;
    return "here";
  }

  Prepared prepare(const Region& local, const RemoteRegion&, Peer& peer, const std::string& attachment,
                   Deadline) override {
    Prepared answer;
    if (set_.refuse)
      answer.reason = "told to refuse";
    else if (peer.pid() != getpid())
      answer.reason = "the peer is another process";
    else if (attachment.empty() || local.location != Location::cpu)
      answer.reason = "not host memory";
    else
      answer = {std::make_shared<Route>(), 1.0, 10e9, {}};
    return answer;
  }

  void submit(JobPtr job) override {
    if (!set_.threaded) return carry(*job);
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(job));
    wake_.notify_one();
  }

  bool help(Job& job) override {
    if (set_.delay.count() > 0) return false;  // a waiter with a short timeout must come back
    JobPtr mine;
    {
      const std::lock_guard lock(mutex_);
      const auto at =
          std::find_if(queue_.begin(), queue_.end(), [&](const JobPtr& j) { return j.get() == &job; });
      if (at == queue_.end()) return false;
      mine = std::move(*at);
      queue_.erase(at);
    }
    carry(*mine);
    return true;
  }

  void nudge(Job&) override { wake_.notify_one(); }
  std::vector<std::pair<std::string, double>> counters() const override {
    return {{"bytes", double(bytes_.load())}, {"faults", double(faults_.load())}};
  }

 private:
  void run() {
    std::unique_lock lock(mutex_);
    while (true) {
      wake_.wait(lock, [this] { return stop_ || !queue_.empty(); });
      if (queue_.empty()) return;
      JobPtr job = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      carry(*job);
      job.reset();
      lock.lock();
    }
  }

  bool fault() {
    if (set_.fault_permille == 0) return false;
    const std::lock_guard lock(random_mutex_);
    return random_() % 1000 < set_.fault_permille;
  }

  static bool take(std::atomic<int64_t>& left) { return left.load() > 0 && left.fetch_sub(1) > 0; }

  void carry(Job& job) {
    const bool lose = take(lose_jobs_);
    const bool fail = !lose && take(fail_jobs_);
    const auto segments = job.segments();
    uint64_t done = 0;
    for (size_t i = 0; i < segments.size(); ++i) {
      for (Segment rest = segments[i]; rest.bytes > 0;) {
        if (set_.delay.count() > 0) std::this_thread::sleep_for(set_.delay);
        const bool broken = fault() || (fail && done >= job.bytes() / 2);
        if (job.stopping() || broken || lose) {
          Outcome outcome{StatusCode::err_transport, "stopped", broken, {rest}};
          if (broken) {
            faults_.fetch_add(1);
            outcome.message = "fault as ordered";
          } else if (lose) {
            outcome.code = StatusCode::err_peer_lost;
            outcome.message = "peer lost as ordered";
          }
          outcome.unfinished.insert(outcome.unfinished.end(), segments.begin() + ptrdiff_t(i) + 1,
                                    segments.end());
          return job.finish(std::move(outcome));
        }
        const uint64_t bytes = std::min(rest.bytes, set_.chunk_bytes);
        copy(job, {rest.local, rest.remote, bytes});
        done += bytes;
        bytes_.fetch_add(bytes, std::memory_order_relaxed);
        rest = {rest.local + bytes, rest.remote + bytes, rest.bytes - bytes};
      }
    }
    job.finish({});
  }

  void copy(Job& job, const Segment& s) {
    auto* local = reinterpret_cast<uint8_t*>(job.local().address + s.local);
    auto* remote = reinterpret_cast<uint8_t*>(job.remote().address + s.remote);
    auto* to = job.op() == Op::read ? local : remote;
    const auto* from = job.op() == Op::read ? remote : local;
    if (set_.add)
      for (uint64_t i = 0; i < s.bytes; ++i) to[i] = uint8_t(to[i] + from[i]);
    else
      std::memcpy(to, from, s.bytes);
  }

  const std::string_view name_;
  const Settings set_;
  std::atomic<int64_t> fail_jobs_, lose_jobs_;
  std::atomic<uint64_t> bytes_{0}, faults_{0};
  std::mutex random_mutex_;
  std::mt19937_64 random_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<JobPtr> queue_;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<Backend> make_backend(Host&, const BackendOptions& options) {
  return std::make_unique<Loopback>("loopback", Settings(options));
}

std::unique_ptr<Backend> make_second_backend(Host&, const BackendOptions& options) {
  return std::make_unique<Loopback>("loopback2", Settings(options));
}

}  // namespace mori::io::loopback
