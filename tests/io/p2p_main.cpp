// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The p2p backend without an engine: `p2p_main KIND KERNEL_DIR SCENARIO...`, on real or pretended GPUs.
// Memories are compared byte for byte, with canaries round what was written. `time` prints figures instead.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstring>
#include <functional>
#include <future>
#include <map>
#include <random>
#include <thread>
#include <vector>

#include "src/io/backends/p2p/p2p.hpp"
#include "src/io/backends/p2p/p2p_worker.hpp"

using namespace mori;
using namespace mori::io;
using core::Kind;
using p2p::CopyGrid, p2p::plan_grid, p2p::share_out;

namespace {

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error(what); }
void expect(bool holds, const std::string& what) {
  if (!holds) fail(what);
}

class TestPeer final : public Peer {
 public:
  TestPeer(int64_t pid, bool same_host) : pid_(pid), same_host_(same_host) {}
  const std::string& engine() const override { return name_; }
  uint64_t incarnation() const override { return 1; }
  bool same_host() const override { return same_host_; }
  int64_t pid() const override { return pid_; }
  const std::string& address() const override { return name_; }
  std::string ask(std::string_view, std::string_view, Deadline, std::vector<Fd>*) override { return {}; }
  bool tell(std::string_view, std::string_view) override { return true; }
  Stream open_stream(std::string_view, Deadline) override { return {}; }

 private:
  std::string name_ = "peer";
  int64_t pid_;
  bool same_host_;
};

class TestJob final : public Job {
 public:
  TestJob(Op op, Region local, RemoteRegion remote, Peer& peer, std::shared_ptr<Route> route,
          std::vector<Segment> segments)
      : op_(op), local_(local), remote_(remote), peer_(peer), route_(route), segments_(std::move(segments)) {
    for (const Segment& s : segments_) bytes_ += s.bytes;
  }
  Op op() const override { return op_; }
  const Region& local() const override { return local_; }
  const RemoteRegion& remote() const override { return remote_; }
  Peer& peer() const override { return peer_; }
  Route& route() const override { return *route_; }
  std::span<const Segment> segments() const override { return segments_; }
  uint64_t bytes() const override { return bytes_; }
  Deadline deadline() const override { return Deadline::max(); }
  bool stopping() const override { return stop; }
  void progressed(uint64_t bytes) override { confirmed += bytes; }
  void finish(Outcome outcome) override {
    const std::lock_guard lock(mutex_);
    if (++finished_ > 1) std::abort();
    outcome_ = std::move(outcome);
    done_.store(true, std::memory_order_release);
    changed_.notify_all();
  }
  bool done() const { return done_.load(std::memory_order_acquire); }
  Outcome wait(Backend& backend) {
    while (!done() && backend.help(*this)) {
    }
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, std::chrono::seconds(30), [&] { return finished_ > 0; }))
      fail("no finish()");
    return outcome_;
  }

  std::atomic<bool> stop{false};
  std::atomic<uint64_t> confirmed{0};

 private:
  const Op op_;
  const Region local_;
  const RemoteRegion remote_;
  Peer& peer_;
  const std::shared_ptr<Route> route_;
  const std::vector<Segment> segments_;
  uint64_t bytes_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::atomic<bool> done_{false};
  int finished_ = 0;
  Outcome outcome_;
};

struct Lab {
  Kind kind;
  std::string kernel_dir;
  std::unique_ptr<Backend> backend = p2p::make_p2p({.kind = kind, .kernel_dir = kernel_dir});

  std::shared_ptr<core::Device> gpu(int ordinal) {
    return core::open_device(kind, ordinal % core::device_count(kind), {.kernel_dir = kernel_dir});
  }
  /// A region inside an allocation, so that offsets matter.
  Region on_gpu(int ordinal, uint64_t bytes) {
    const auto device = gpu(ordinal);
    devices.push_back(device);
    const uint64_t base = device->allocate(bytes + 4096);
    return {.id = ++ids,
            .key = {},
            .location = Location::gpu,
            .device = device->ordinal(),
            .address = base + 1040,
            .bytes = bytes,
            .fd = -1,
            .path = {}};
  }
  Region on_host(uint64_t bytes) {
    void* at = ::mmap(nullptr, bytes + 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return {.id = ++ids,
            .key = {},
            .location = Location::cpu,
            .device = -1,
            .address = reinterpret_cast<uint64_t>(at) + 72,
            .bytes = bytes,
            .fd = -1,
            .path = {}};
  }
  RemoteRegion remote(const Region& region) {
    RemoteRegion out{.engine = "peer",
                     .incarnation = 1,
                     .id = region.id,
                     .key = {},
                     .location = region.location,
                     .device = region.device,
                     .device_bus_id = {},
                     .numa_node = -1,
                     .address = region.address,
                     .bytes = region.bytes};
    if (region.device >= 0) out.device_bus_id = gpu(region.device)->properties().pci_bus_id;
    return out;
  }
  void put(const Region& region, const std::vector<uint8_t>& bytes) {
    if (region.device < 0) {
      std::memcpy(reinterpret_cast<void*>(region.address), bytes.data(), bytes.size());
    } else {
      gpu(region.device)->copy(region.address, reinterpret_cast<uint64_t>(bytes.data()), bytes.size());
    }
  }
  std::vector<uint8_t> get(const Region& region) {
    std::vector<uint8_t> out(region.bytes);
    if (region.device < 0) {
      std::memcpy(out.data(), reinterpret_cast<void*>(region.address), out.size());
    } else {
      gpu(region.device)->copy(reinterpret_cast<uint64_t>(out.data()), region.address, out.size());
    }
    return out;
  }

  std::vector<std::shared_ptr<core::Device>> devices{};
  uint64_t ids = 0;
};

/// Blocks of any sizes in random places that do not overlap on either side, with gaps.
std::vector<Segment> blocks(std::mt19937& random, uint64_t bytes, uint64_t most) {
  std::vector<uint64_t> sizes;
  for (uint64_t used = 0;;) {
    const uint64_t size = 1 + random() % most;
    if ((used += size + 16) > bytes) break;
    sizes.push_back(size);
  }
  std::vector<size_t> order(sizes.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::shuffle(order.begin(), order.end(), random);
  std::vector<Segment> out(sizes.size());
  uint64_t at = 0;
  for (size_t i = 0; i < sizes.size(); ++i) out[i].remote = at, out[i].bytes = sizes[i], at += sizes[i] + 16;
  at = 0;
  for (const size_t i : order) out[i].local = at, at += sizes[i] + 16;
  return out;
}

std::vector<uint8_t> noise(uint64_t bytes, uint64_t seed) {
  std::vector<uint64_t> words(bytes / 8 + 1);
  uint64_t state = seed * 2 + 1;
  for (uint64_t& word : words)
    word = (state = state * 6364136223846793005u + 1442695040888963407u) ^ state >> 29;
  std::vector<uint8_t> out(bytes);
  std::memcpy(out.data(), words.data(), bytes);
  return out;
}

void apply(Op op, std::vector<uint8_t>& local, std::vector<uint8_t>& remote,
           const std::vector<Segment>& list) {
  for (const Segment& s : list) {
    if (op == Op::write) std::memcpy(&remote[s.remote], &local[s.local], s.bytes);
    if (op == Op::read) std::memcpy(&local[s.local], &remote[s.remote], s.bytes);
  }
}

void same(const std::vector<uint8_t>& got, const std::vector<uint8_t>& want, const char* what) {
  if (got == want) return;
  size_t i = 0;
  while (got[i] == want[i]) ++i;
  fail(std::string(what) + " differs at byte " + std::to_string(i));
}

std::shared_ptr<Route> route(Lab& lab, Peer& peer, const Region& local, const Region& there,
                             const std::string& attachment) {
  const Prepared found = lab.backend->prepare(local, lab.remote(there), peer, attachment, Deadline::max());
  if (found.route == nullptr) fail("no route: " + found.reason);
  return found.route;
}

void check_pair(Lab& lab, const Region& a, const Region& b, const char* name) {
  TestPeer self(::getpid(), true);
  const auto way = route(lab, self, a, b, lab.backend->attach(b).value_or(""));
  std::mt19937 random(7);
  for (const uint64_t most : {40u, 5000u, 300'000u, 3'000'000u}) {
    for (const Op op : {Op::write, Op::read}) {
      auto mine = noise(a.bytes, random()), theirs = noise(b.bytes, random());
      lab.put(a, mine), lab.put(b, theirs);
      auto list = blocks(random, std::min(a.bytes, most * 700), most);
      auto job = std::make_shared<TestJob>(op, a, lab.remote(b), self, way, list);
      lab.backend->submit(job);
      const Outcome outcome = job->wait(*lab.backend);
      expect(outcome.code == StatusCode::success, std::string(name) + ": " + outcome.message);
      expect(outcome.unfinished.empty() && job->confirmed == job->bytes(), "bytes confirmed");
      apply(op, mine, theirs, list);
      same(lab.get(a), mine, name), same(lab.get(b), theirs, name);
    }
  }
  lab.backend->revoke(*way);
}

/// What the host tells the kernel: every chunk once, in order, the same number for each block but for one.
void shares(Lab&) {
  std::mt19937 random(5);
  for (int round = 0; round < 400; ++round) {
    std::vector<IoCopyPiece> pieces(1 + random() % 200);
    uint64_t bytes = 0;
    for (IoCopyPiece& piece : pieces) bytes += piece.bytes = 1 + random() % (1u << (random() % 22));
    const CopyGrid grid = plan_grid(pieces, bytes, 1 + random() % 140, 1 + random() % 8);
    std::vector<IoCopyShare> found(grid.blocks);
    share_out(pieces, grid, found.data());
    uint64_t piece = 0, chunk = 0, all = 0;
    for (const IoCopyShare& share : found) {
      expect(share.chunks == 0 || (share.piece == piece && share.chunk == chunk),
             "a share begins where the last ended");
      expect(share.chunks + 1 >= grid.chunks / grid.blocks && share.chunks <= grid.chunks / grid.blocks + 1,
             "even shares");
      all += share.chunks;
      for (uint64_t left = share.chunks; left > 0; --left) {
        if (++chunk << grid.shift >= pieces[piece].bytes) ++piece, chunk = 0;
      }
    }
    expect(piece == pieces.size() && chunk == 0 && all == grid.chunks, "all chunks are shared out");
  }
  const P2pOptions options;
  expect(p2p::by_kernel(options, 1, 4096, true) && !p2p::by_kernel(options, 1, 1 << 20, true), "one segment");
  expect(p2p::by_kernel(options, 256, 256ull << 20, true) && !p2p::by_kernel(options, 4, 64ull << 20, true),
         "several");
  expect(p2p::by_kernel(options, 1000, 1000ull << 16, false) &&
             !p2p::by_kernel(options, 256, 256ull << 20, false),
         "several, host memory");
}

void one_process(Lab& lab) {
  constexpr uint64_t kBytes = 12 << 20;
  const Region a = lab.on_gpu(0, kBytes), b = lab.on_gpu(1, kBytes), c = lab.on_gpu(0, kBytes);
  const Region h = lab.on_host(kBytes);
  check_pair(lab, a, b, "gpu 0 and gpu 1");
  check_pair(lab, a, c, "one gpu");
  check_pair(lab, a, h, "gpu and host");
  check_pair(lab, h, b, "host and gpu");
}

/// The same where kernels write the mark themselves.
void marks(Lab& lab) {
  lab.backend = p2p::make_p2p({.kind = lab.kind, .kernel_dir = lab.kernel_dir, .kernel_marks = true});
  one_process(lab);
}

/// The owner is another process, forked before any driver starts.
void two_processes(Lab& lab, int down, int up) {
  TestPeer owner(0, true);
  int64_t pid = 0;
  uint64_t where[3];
  char attachment[4096];
  expect(::read(up, &pid, 8) == 8 && ::read(up, where, 24) == 24, "words from the owner");
  const ssize_t length = ::read(up, attachment, sizeof(attachment));
  TestPeer peer(pid, true);
  const uint64_t bytes = where[1];
  Region theirs{.id = 99,
                .key = {},
                .location = Location::gpu,
                .device = int(where[2]),
                .address = where[0],
                .bytes = bytes,
                .fd = -1,
                .path = {}};
  const std::string words(attachment, size_t(length));
  for (const Region& mine : {lab.on_gpu(0, bytes), lab.on_host(bytes)}) {
    auto data = noise(bytes, 3);
    lab.put(mine, data);
    const auto way = route(lab, peer, mine, theirs, words);
    const std::vector<Segment> all{{0, 0, bytes}};
    auto write = std::make_shared<TestJob>(Op::write, mine, lab.remote(theirs), peer, way, all);
    lab.backend->submit(write);
    expect(write->wait(*lab.backend).code == StatusCode::success, "write");
    lab.put(mine, std::vector<uint8_t>(bytes));
    // Read back in pieces, turned round: what the owner adds to each byte in between shows that it is its
    // memory.
    expect(::write(down, "x", 1) == 1, "word to the owner");
    expect(::read(up, attachment, 1) == 1, "word from the owner");
    std::vector<Segment> pieces;
    for (uint64_t at = 0; at < bytes; at += 4096) pieces.push_back({bytes - 4096 - at, at, 4096});
    auto read = std::make_shared<TestJob>(Op::read, mine, lab.remote(theirs), peer, way, pieces);
    lab.backend->submit(read);
    expect(read->wait(*lab.backend).code == StatusCode::success, "read");
    const auto got = lab.get(mine);
    for (uint64_t i = 0; i < bytes; ++i) {
      const uint64_t from = bytes - 4096 - i / 4096 * 4096 + i % 4096;
      if (got[i] != uint8_t(data[from] + 1)) fail("byte " + std::to_string(i) + " through the other process");
    }
    lab.backend->revoke(*way);
  }
  TestPeer far(pid, false);
  expect(lab.backend->prepare(lab.on_gpu(0, 64), lab.remote(theirs), far, words, Deadline::max()).route ==
             nullptr,
         "another host");
  for (const size_t cut : {size_t(0), size_t(3), size_t(24), words.size() - 1}) {
    expect(
        lab.backend
                ->prepare(lab.on_gpu(0, 64), lab.remote(theirs), peer, words.substr(0, cut), Deadline::max())
                .route == nullptr,
        "an attachment cut to " + std::to_string(cut));
  }
  theirs.bytes += 1 << 20;
  expect(lab.backend->prepare(lab.on_gpu(0, 64), lab.remote(theirs), peer, words, Deadline::max()).route ==
             nullptr,
         "a region beyond its allocation");
}

void own(Kind kind, const std::string& kernel_dir, int down, int up) {
  Lab lab{kind, kernel_dir};
  const Region region = lab.on_gpu(1, 2 << 20);
  const int64_t pid = ::getpid();
  const uint64_t where[3] = {region.address, region.bytes, uint64_t(region.device)};
  const std::string words = lab.backend->attach(region).value();
  if (::write(up, &pid, 8) != 8 || ::write(up, where, 24) != 24) return;
  ::usleep(50'000);  // so that the reader's reads are apart
  if (::write(up, words.data(), words.size()) < 0) return;
  for (char word; ::read(down, &word, 1) == 1;) {
    auto bytes = lab.get(region);
    for (uint8_t& byte : bytes) ++byte;
    lab.put(region, bytes);
    if (::write(up, "y", 1) != 1) return;
  }
}

/// Stopped in the middle: what is confirmed has landed, what is unfinished is listed, nothing lands later.
void cancel(Lab& lab) {
  constexpr uint64_t kBytes = 160 << 20;  // more than two windows
  const Region a = lab.on_gpu(0, kBytes), b = lab.on_gpu(1, kBytes);
  TestPeer self(::getpid(), true);
  const auto way = route(lab, self, a, b, lab.backend->attach(b).value());
  const auto mine = noise(kBytes, 1);
  auto theirs = std::vector<uint8_t>(kBytes, 0xCC);
  lab.put(a, mine), lab.put(b, theirs);
  std::vector<Segment> list;
  for (uint64_t at = 0; at < kBytes; at += 1 << 20) list.push_back({at, at, 1 << 20});
  auto job = std::make_shared<TestJob>(Op::write, a, lab.remote(b), self, way, list);
  lab.backend->submit(job);
  job->stop = true;
  lab.backend->nudge(*job);
  const Outcome outcome = job->wait(*lab.backend);
  expect(outcome.code == StatusCode::err_cancelled && !outcome.unfinished.empty(), "a cancelled outcome");
  const auto at_the_end = lab.get(b);
  uint64_t left = 0;
  std::vector<bool> open(kBytes >> 20);
  for (const Segment& s : outcome.unfinished) {
    left += s.bytes;
    for (uint64_t at = s.remote; at < s.remote + s.bytes; at += 1 << 20) open[at >> 20] = true;
  }
  expect(left + job->confirmed == kBytes, "confirmed and unfinished make up all of it");
  for (uint64_t at = 0; at < kBytes; at += 1 << 20) {
    if (!open[at >> 20]) std::memcpy(&theirs[at], &mine[at], 1 << 20);
  }
  same(at_the_end, theirs, "what landed, and what is said to have landed,");
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  same(lab.get(b), at_the_end, "what lands after the end");
}

/// The memory goes away, the peer is lost, with jobs under way; a job on a revoked route is refused.
void revoked(Lab& lab) {
  constexpr uint64_t kBytes = 160 << 20;
  const Region a = lab.on_gpu(0, kBytes), b = lab.on_gpu(1, kBytes);
  TestPeer self(::getpid(), true);
  for (const bool lose : {false, true}) {
    const auto way = route(lab, self, a, b, lab.backend->attach(b).value());
    auto job = std::make_shared<TestJob>(Op::read, a, lab.remote(b), self, way,
                                         std::vector<Segment>{{0, 0, kBytes}});
    lab.backend->submit(job);
    if (lose) lab.backend->lost(self);
    if (!lose) lab.backend->revoke(*way);
    if (!lose) expect(job->done(), "revoke() returns when the jobs have ended");
    const Outcome outcome = job->wait(*lab.backend);
    expect(outcome.code == (lose ? StatusCode::err_peer_lost : StatusCode::err_not_found), outcome.message);
    expect(!outcome.reroutable && !outcome.unfinished.empty(), "not for another route");
    if (lose) continue;
    auto late =
        std::make_shared<TestJob>(Op::read, a, lab.remote(b), self, way, std::vector<Segment>{{0, 0, 8}});
    lab.backend->submit(late);
    expect(late->wait(*lab.backend).code == StatusCode::err_not_found, "a late job");
  }
}

/// Eight threads submit and wait; more jobs than lanes.
void crowd(Lab& lab) {
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&, t] {
      Lab own{lab.kind, lab.kernel_dir, nullptr, {}, uint64_t(1000 * (t + 1))};
      const Region a = own.on_gpu(t, 1 << 20), b = own.on_gpu(t + 1, 1 << 20);
      TestPeer self(::getpid(), true);
      const Prepared way =
          lab.backend->prepare(a, own.remote(b), self, lab.backend->attach(b).value(), Deadline::max());
      std::mt19937 random{uint32_t(t)};
      for (int round = 0; round < 20; ++round) {
        auto mine = noise(a.bytes, random()), theirs = own.get(b);
        own.put(a, mine);
        std::vector<std::shared_ptr<TestJob>> jobs;
        const auto list = blocks(random, a.bytes, 30'000);
        for (const Segment& s : list) {
          jobs.push_back(std::make_shared<TestJob>(Op::write, a, own.remote(b), self, way.route,
                                                   std::vector<Segment>{s}));
          lab.backend->submit(jobs.back());
        }
        for (const auto& job : jobs) wrong += job->wait(*lab.backend).code != StatusCode::success;
        apply(Op::write, mine, theirs, list);
        wrong += own.get(b) != theirs;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  expect(wrong == 0, std::to_string(int(wrong)) + " wrong results");
}

/// A GPU that refuses a copy in the middle of a job: an outcome that another route can finish.
void broken(Lab& lab) {
  lab.backend = p2p::make_p2p({.kind = lab.kind, .kernel_dir = lab.kernel_dir, .kernel_below_bytes = 0});
  const Region a = lab.on_gpu(0, 4 << 20), b = lab.on_gpu(1, 4 << 20);
  TestPeer self(::getpid(), true);
  const auto way = route(lab, self, a, b, lab.backend->attach(b).value());
  std::vector<Segment> list{{0, 0, 2 << 20}, {2 << 20, 2 << 20, 1234567}, {3500000, 3500000, 100'000}};
  auto job = std::make_shared<TestJob>(Op::write, a, lab.remote(b), self, way, list);
  lab.put(a, noise(a.bytes, 1));
  lab.backend->submit(job);
  const Outcome outcome = job->wait(*lab.backend);
  expect(outcome.code == StatusCode::err_gpu_op && outcome.reroutable, outcome.message);
  uint64_t left = 0;
  for (const Segment& s : outcome.unfinished) left += s.bytes;
  expect(left == job->bytes(), "a window that was queued in part counts as not done");
}

double once(Lab& lab, const Region& a, const Region& b, Peer& peer, const std::shared_ptr<Route>& way, Op op,
            const std::vector<Segment>& list) {
  auto job = std::make_shared<TestJob>(op, a, lab.remote(b), peer, way, list);
  const auto start = Clock::now();
  lab.backend->submit(job);
  while (!job->done()) lab.backend->help(*job);
  const double us = std::chrono::duration<double, std::micro>(Clock::now() - start).count();
  expect(job->wait(*lab.backend).code == StatusCode::success, "a timed transfer");
  return us;
}

void time_pair(Lab& lab, const Region& a, const Region& b, const char* name) {
  TestPeer self(::getpid(), true);
  const auto way = route(lab, self, a, b, lab.backend->attach(b).value_or(""));
  std::mt19937 random(1);
  for (const Op op : {Op::write, Op::read}) {
    for (const auto& [size, count] : std::vector<std::pair<uint64_t, uint64_t>>{{4096, 1},
                                                                                {65536, 1},
                                                                                {1 << 20, 1},
                                                                                {4096, 32},
                                                                                {4096, 1000},
                                                                                {16384, 1000},
                                                                                {65536, 1000},
                                                                                {262144, 1000},
                                                                                {1 << 20, 256},
                                                                                {4 << 20, 100},
                                                                                {16 << 20, 16},
                                                                                {512 << 20, 1}}) {
      const uint64_t pool = std::max<uint64_t>(count, std::min<uint64_t>(2 * count, a.bytes / size));
      std::vector<double> us;
      for (int round = 0; round < 20; ++round) {
        std::vector<uint64_t> here(pool), there(pool);
        for (uint64_t i = 0; i < pool; ++i) here[i] = there[i] = i;
        std::shuffle(here.begin(), here.end(), random);
        std::shuffle(there.begin(), there.end(), random);
        there.resize(count);
        std::sort(there.begin(), there.end());
        std::vector<Segment> list;
        for (uint64_t i = 0; i < count; ++i) list.push_back({here[i] * size, there[i] * size, size});
        us.push_back(once(lab, a, b, self, way, op, list));
      }
      std::sort(us.begin(), us.end());
      std::printf("%-18s %-5s %6llu x %8llu  median %9.1f us  p90 %9.1f  %7.1f GB/s\n", name,
                  op == Op::write ? "write" : "read", (unsigned long long)count, (unsigned long long)size,
                  us[10], us[18], double(size * count) / us[10] / 1e3);
    }
  }
  lab.backend->revoke(*way);
}

/// Kernel and copy engines over sizes and counts, kernels of several widths with either mark: where the
/// thresholds of P2pOptions come from.
void time_all(Lab& lab) {
  constexpr uint64_t kBytes = 600 << 20;
  constexpr uint64_t kAll = uint64_t(1) << 40;
  const Region a = lab.on_gpu(0, kBytes), b = lab.on_gpu(1, kBytes), h = lab.on_host(kBytes);
  const auto with = [&](uint64_t below, uint32_t blocks, bool marks) {
    lab.backend = p2p::make_p2p({.kind = lab.kind,
                                 .kernel_dir = lab.kernel_dir,
                                 .blocks = blocks,
                                 .kernel_below_bytes = below,
                                 .host_kernel_below_bytes = below,
                                 .single_kernel_below_bytes = below,
                                 .kernel_marks = marks});
    std::printf("--- %s, %u blocks, %s\n", below == 0 ? "copy engines" : "kernel", blocks,
                marks ? "marks by the kernel" : "events");
    time_pair(lab, a, b, "gpu 0 and gpu 1");
    if (blocks != 132) time_pair(lab, a, h, "gpu and host");
  };
  for (const uint32_t blocks : {16u, 32u, 64u, 132u}) with(kAll, blocks, true);
  with(kAll, 64, false);
  with(0, 64, false);
}

const std::map<std::string, std::function<void(Lab&)>> kScenarios = {
    {"one_process", one_process}, {"marks", marks}, {"shares", shares}, {"cancel", cancel},
    {"revoked", revoked},         {"crowd", crowd}, {"broken", broken}, {"time", time_all}};

}  // namespace

int main(int argc, char** argv) {
  const Kind kind = std::string(argv[1]) == "hip" ? Kind::hip : Kind::cuda;
  const std::string kernel_dir = argv[2];
  try {
    for (int i = 3; i < argc; ++i) {
      const std::string name = argv[i];
      int down[2], up[2], status = 0;
      expect(::pipe(down) == 0 && ::pipe(up) == 0, "pipes");
      std::fflush(stdout);
      // A process of its own each: drivers do not survive fork().
      const pid_t child = ::fork();
      if (child == 0) {
        try {
          if (name == "two_processes") {
            const pid_t owner = ::fork();
            if (owner == 0) {
              ::close(down[1]), ::close(up[0]);
              own(kind, kernel_dir, down[0], up[1]);
              ::_exit(0);
            }
            ::close(down[0]), ::close(up[1]);
            {
              Lab lab{kind, kernel_dir};
              two_processes(lab, down[1], up[0]);
            }
            ::close(down[1]);
            ::waitpid(owner, &status, 0);
          } else {
            Lab lab{kind, kernel_dir};
            kScenarios.at(name)(lab);
          }
          std::fflush(stdout);
          ::exit(0);
        } catch (const std::exception& error) {
          std::fprintf(stderr, "%s: %s\n", name.c_str(), error.what());
          ::_exit(1);
        }
      }
      ::close(down[0]), ::close(down[1]), ::close(up[0]), ::close(up[1]);
      ::waitpid(child, &status, 0);
      if (status != 0) fail(name + " failed with status " + std::to_string(status));
      std::printf("%s passed\n", name.c_str());
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
