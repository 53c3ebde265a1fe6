// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Two rdma backends in one process that talk over pretended control connections: what the scenarios drive,
// over the fake library or, in the SoftRoCE machine, over real verbs.
#pragma once
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <future>
#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "src/io/backends/rdma/rdma_backend.hpp"
#include "src/io/errors.hpp"

#define CHECK(condition)                                                           \
  do {                                                                             \
    if (!(condition)) {                                                            \
      std::fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
      std::fflush(stderr);                                                         \
      std::_Exit(1);                                                               \
    }                                                                              \
  } while (false)

#define CHECK_TEXT(text, part)                                                           \
  do {                                                                                   \
    const std::string checked_text = (text);                                             \
    if (checked_text.find(part) == std::string::npos) {                                  \
      std::fprintf(stderr, "%s:%d: \"%s\" is not in \"%s\"\n", __FILE__, __LINE__, part, \
                   checked_text.c_str());                                                \
      std::_Exit(1);                                                                     \
    }                                                                                    \
  } while (false)

namespace pair {

using namespace mori::io;
using namespace std::chrono_literals;
using rdma::Config;
using rdma::RdmaBackend;

enum class Line { open, silent, cut };

/// How one side sees the other.
class TestPeer final : public Peer {
 public:
  std::string name;
  uint64_t number = 1;
  RdmaBackend* other = nullptr;
  TestPeer* back = nullptr;  ///< how the other side sees this one
  std::atomic<Line> line{Line::open};
  std::atomic<int> asked{0};

  const std::string& engine() const override { return name; }
  uint64_t incarnation() const override { return number; }
  bool same_host() const override { return true; }
  int64_t pid() const override { return 1; }
  const std::string& address() const override { return name; }
  std::string ask(std::string_view, std::string_view request, Deadline deadline, std::vector<Fd>*) override {
    ++asked;
    if (line == Line::cut) throw PeerLost("connection to " + name + " is down");
    if (line == Line::silent) {
      std::this_thread::sleep_until(deadline);
      throw TimeoutError("no answer from " + name);
    }
    std::lock_guard lock(control_);
    std::vector<Fd> pass;
    return other->answer(*back, request, pass);
  }
  bool tell(std::string_view, std::string_view message) override {
    if (line != Line::open) return false;
    std::lock_guard lock(control_);
    other->told(*back, message);
    return true;
  }
  Stream open_stream(std::string_view, Deadline) override { throw core_error(); }

 private:
  static mori::core::TransportError core_error() { return mori::core::TransportError("no streams here"); }
  std::mutex control_;
};

class TestJob final : public Job {
 public:
  Op kind = Op::write;
  Region mine;
  RemoteRegion theirs;
  TestPeer* to = nullptr;
  std::shared_ptr<Route> way;
  std::vector<Segment> list;
  Deadline until = Deadline::max();
  std::atomic<bool> halt{false};
  std::atomic<uint64_t> told{0};
  std::atomic<int> finished{0};
  std::promise<Outcome> promise;
  std::future<Outcome> result = promise.get_future();

  Op op() const override { return kind; }
  const Region& local() const override { return mine; }
  const RemoteRegion& remote() const override { return theirs; }
  Peer& peer() const override { return *to; }
  Route& route() const override { return *way; }
  std::span<const Segment> segments() const override { return list; }
  uint64_t bytes() const override {
    uint64_t n = 0;
    for (const Segment& s : list) n += s.bytes;
    return n;
  }
  Deadline deadline() const override { return until; }
  bool stopping() const override { return halt || Clock::now() >= until; }
  void progressed(uint64_t bytes) override { told += bytes; }
  void finish(Outcome outcome) override {
    CHECK(finished++ == 0);
    promise.set_value(std::move(outcome));
  }
  Outcome wait(std::chrono::milliseconds limit = 20s) {
    CHECK(result.wait_for(limit) == std::future_status::ready);
    return result.get();
  }
};
using TestJobPtr = std::shared_ptr<TestJob>;

/// A registered buffer, with its bytes.
struct Buffer {
  Region region;
  std::vector<uint8_t> bytes;
  std::string attachment;
};

inline void fill(Buffer& b, uint32_t seed) {
  std::mt19937 g(seed);
  for (size_t i = 0; i < b.bytes.size(); ++i) b.bytes[i] = uint8_t(g() >> 7);
}

/// Sides A (initiator) and B (target).
class Pair {
 public:
  explicit Pair(Config a, Config b) {
    back_a = std::make_unique<RdmaBackend>(std::move(a));
    back_b = std::make_unique<RdmaBackend>(std::move(b));
    a_sees_b.name = "B";
    b_sees_a.name = "A";
    a_sees_b.other = back_b.get();
    b_sees_a.other = back_a.get();
    a_sees_b.back = &b_sees_a;
    b_sees_a.back = &a_sees_b;
  }
  ~Pair() {
    back_a.reset();
    b_sees_a.line = Line::cut;
    back_b.reset();
  }

  std::unique_ptr<Buffer> buffer(bool at_b, size_t bytes, uint32_t seed) {
    auto b = std::make_unique<Buffer>();
    b->bytes.resize(bytes);
    fill(*b, seed);
    b->region.id = next_id++;
    b->region.location = Location::cpu;
    b->region.address = reinterpret_cast<uintptr_t>(b->bytes.data());
    b->region.bytes = bytes;
    b->attachment = (at_b ? back_b : back_a)->attach(b->region).value_or("");
    return b;
  }
  void drop(bool at_b, const Buffer& b) { (at_b ? back_b : back_a)->detach(b.region); }

  static RemoteRegion remote_of(const Buffer& b) {
    RemoteRegion r;
    r.engine = "B";
    r.incarnation = 1;
    r.id = b.region.id;
    r.location = b.region.location;
    r.address = b.region.address;
    r.bytes = b.region.bytes;
    return r;
  }
  Prepared prepare(const Buffer& mine, const Buffer& theirs, std::chrono::milliseconds limit = 10s) {
    return back_a->prepare(mine.region, remote_of(theirs), a_sees_b, theirs.attachment, Clock::now() + limit);
  }
  TestJobPtr job(Op op, const Buffer& mine, const Buffer& theirs, std::shared_ptr<Route> route,
                 std::vector<Segment> segments, Deadline until = Deadline::max()) {
    auto j = std::make_shared<TestJob>();
    j->kind = op;
    j->mine = mine.region;
    j->theirs = remote_of(theirs);
    j->to = &a_sees_b;
    j->way = std::move(route);
    j->list = std::move(segments);
    j->until = until;
    return j;
  }
  double counter(bool at_b, const std::string& name) const {
    for (const auto& [key, value] : (at_b ? back_b : back_a)->counters()) {
      if (key == name) return value;
    }
    CHECK(!"no such counter");
    return 0;
  }

  TestPeer a_sees_b, b_sees_a;
  std::unique_ptr<RdmaBackend> back_a, back_b;
  std::atomic<uint64_t> next_id{1};
};

/// `count` blocks of `bytes` at random places of two pools of `slots`, ascending at the remote side.
inline std::vector<Segment> random_blocks(size_t count, uint64_t bytes, size_t slots, uint32_t seed) {
  std::vector<uint64_t> here(slots), there(slots);
  for (size_t i = 0; i < slots; ++i) here[i] = there[i] = i;
  std::mt19937 g(seed);
  std::shuffle(here.begin(), here.end(), g);
  std::shuffle(there.begin(), there.end(), g);
  there.resize(count);
  std::sort(there.begin(), there.end());
  std::vector<Segment> list;
  for (size_t i = 0; i < count; ++i) list.push_back({here[i] * bytes, there[i] * bytes, bytes});
  return list;
}

/// After a success: the blocks are equal, and everything else of the destination is as it was.
inline void verify(Op op, const Buffer& mine, const Buffer& theirs, const std::vector<uint8_t>& before,
                   const std::vector<Segment>& segments) {
  std::vector<uint8_t> want = before;
  for (const Segment& s : segments) {
    if (op == Op::write) {
      std::memcpy(&want[s.remote], &mine.bytes[s.local], s.bytes);
    } else {
      std::memcpy(&want[s.local], &theirs.bytes[s.remote], s.bytes);
    }
  }
  const auto& got = op == Op::write ? theirs.bytes : mine.bytes;
  for (size_t i = 0; i < want.size(); ++i) {
    if (got[i] == want[i]) continue;
    std::fprintf(stderr, "byte %zu of %zu differs\n", i, want.size());
    std::_Exit(1);
  }
}

}  // namespace pair
