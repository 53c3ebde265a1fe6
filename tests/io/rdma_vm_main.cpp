// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Scenarios of the rdma backend over real verbs, in the SoftRoCE machine (tools/rxe_vm) with four NICs:
// rxe0 <-> rxe1 is one network, rxe2 <-> rxe3 another. Side A has rxe0 and rxe2, side B rxe1 and rxe3.
//   rdma_vm_main SCENARIO [ARGUMENT]
#include <arpa/inet.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <fstream>
#include <functional>
#include <map>

#include "rdma_pair.hpp"

using namespace pair;

namespace {

const Op kBoth[] = {Op::write, Op::read};

class Interface {  ///< vN of rxeN; ioctls, since a shell takes longer than a transfer here
 public:
  explicit Interface(int nic) : fd_(::socket(AF_INET, SOCK_DGRAM, 0)), nic_(nic) {
    std::snprintf(request_.ifr_name, sizeof request_.ifr_name, "v%d", nic);
  }
  ~Interface() { ::close(fd_); }
  void down() {
    CHECK(::ioctl(fd_, SIOCGIFFLAGS, &request_) == 0);
    request_.ifr_flags = short(request_.ifr_flags & ~IFF_UP);
    CHECK(::ioctl(fd_, SIOCSIFFLAGS, &request_) == 0);
  }
  void up() {  // the tool restores the route, too
    CHECK(std::system(("rxe_link " + std::to_string(nic_) + " up").c_str()) == 0);
    for (const int nic : {nic_, nic_ ^ 1}) {
      std::string state;
      while (state.find("ACTIVE") == std::string::npos) {
        std::this_thread::sleep_for(20ms);
        std::getline(std::ifstream("/sys/class/infiniband/rxe" + std::to_string(nic) + "/ports/1/state"),
                     state);
      }
    }
  }
  /// With another MAC address it drops what it gets, and both ports stay up: a path that eats packets.
  void deaf(bool on) {
    CHECK(::ioctl(fd_, SIOCGIFHWADDR, &request_) == 0);
    request_.ifr_hwaddr.sa_data[1] = on ? 0x55 : 0;
    CHECK(::ioctl(fd_, SIOCSIFHWADDR, &request_) == 0);
  }

 private:
  ifreq request_{};
  const int fd_;
  const int nic_;
};

void wait_until_moving(const TestJob& job) {
  while (job.told == 0 && job.finished == 0) std::this_thread::sleep_for(1ms);
}

Config settings(int side, uint32_t nics = 1) {
  Config c;
  c.devices = {side == 0 ? "rxe0" : "rxe1", side == 0 ? "rxe2" : "rxe3"};
  c.nics_per_transfer = nics;
  c.timeout = 12;  // 17 ms, four times
  c.retry_count = 3;
  c.retry_after = 300ms;
  return c;
}

Outcome carry(Pair& p, Op op, Buffer& mine, Buffer& theirs, const std::vector<Segment>& list,
              const std::function<void(TestJob&)>& meanwhile = {}) {
  auto prepared = p.prepare(mine, theirs);
  if (!prepared.route) std::fprintf(stderr, "%s\n", prepared.reason.c_str());
  CHECK(prepared.route);
  const auto before = op == Op::write ? theirs.bytes : mine.bytes;
  auto job = p.job(op, mine, theirs, prepared.route, list);
  p.back_a->submit(job);
  if (meanwhile) meanwhile(*job);
  Outcome outcome = job->wait();
  uint64_t rest = 0;
  for (const Segment& s : outcome.unfinished) rest += s.bytes;
  CHECK(rest + job->told == job->bytes());
  if (outcome.code == StatusCode::success) verify(op, mine, theirs, before, list);
  return outcome;
}

void succeed(Pair& p, Op op, Buffer& mine, Buffer& theirs, const std::vector<Segment>& list,
             const std::function<void(TestJob&)>& meanwhile = {}) {
  const Outcome outcome = carry(p, op, mine, theirs, list, meanwhile);
  if (outcome.code != StatusCode::success) std::fprintf(stderr, "%s\n", outcome.message.c_str());
  CHECK(outcome.code == StatusCode::success);
}

void bytes() {
  Config a = settings(0);
  a.qp_per_transfer = 2;
  Pair p(a, settings(1));
  for (const Op op : kBoth) {
    for (const size_t size : {1ul, 64ul, 65ul, 4095ul, 4097ul, 100'001ul, (2ul << 20) + 5}) {
      auto mine = p.buffer(false, size + 7, 1), theirs = p.buffer(true, size + 9, 2);
      succeed(p, op, *mine, *theirs, {{3, 5, size}});
      p.drop(false, *mine), p.drop(true, *theirs);
    }
    auto mine = p.buffer(false, 4096 * 600, 3), theirs = p.buffer(true, 4096 * 600, 4);
    succeed(p, op, *mine, *theirs, random_blocks(500, 4096, 600, 5));
    std::vector<Segment> gather;  // contiguous at the peer, scattered here
    for (uint64_t i = 0; i < 30; ++i) gather.push_back({(29 - i) * 1000, 100 + i * 500, 500});
    succeed(p, op, *mine, *theirs, gather);
    p.drop(false, *mine), p.drop(true, *theirs);
  }
}

void saturation() {
  Config a = settings(0);
  a.max_send_wr = 8;
  Pair p(a, settings(1));
  auto mine = p.buffer(false, 256 * 2500, 1), theirs = p.buffer(true, 256 * 2500, 2);
  for (const Op op : kBoth) succeed(p, op, *mine, *theirs, random_blocks(2000, 256, 2500, 3));
  CHECK(p.counter(false, "queue_full") > 0);
}

void rails() {  // two rails, one link goes down under the transfer, and comes back
  Pair p(settings(0, 2), settings(1, 2));
  auto mine = p.buffer(false, 32 << 20, 3), theirs = p.buffer(true, 32 << 20, 4);
  const std::vector<Segment> all{{0, 0, 32 << 20}};
  succeed(p, Op::write, *mine, *theirs, all);
  CHECK(p.counter(false, "rails_up") == 2);
  for (const Op op : kBoth) {
    for (const int nic : {3, 0}) {  // the peer's port, this side's port
      succeed(p, op, *mine, *theirs, all, [&](TestJob& job) {
        wait_until_moving(job);
        Interface(nic).down();
        CHECK(job.finished == 0);
      });
      Interface(nic).up();
      std::this_thread::sleep_for(500ms);
      succeed(p, op, *mine, *theirs, {{0, 0, 100'000}});  // asks for the missing rail
      for (int i = 0; i < 100 && p.counter(false, "rails_up") < 2; ++i) std::this_thread::sleep_for(50ms);
      CHECK(p.counter(false, "rails_up") == 2);
    }
  }
  CHECK(p.counter(false, "rails_failed") >= 4);
}

void failover() {  // one rail at a time: the spare NIC takes over; without any, the rest is handed back
  Pair p(settings(0), settings(1));
  auto mine = p.buffer(false, 16 << 20, 3), theirs = p.buffer(true, 16 << 20, 4);
  const auto blocks = random_blocks(200, 64 << 10, 256, 8);
  succeed(p, Op::write, *mine, *theirs, blocks, [&](TestJob& job) {
    wait_until_moving(job);
    Interface(1).deaf(true);
    CHECK(job.finished == 0);
  });
  const Outcome outcome = carry(p, Op::write, *mine, *theirs, blocks, [&](TestJob& job) {
    wait_until_moving(job);
    Interface(3).deaf(true);
    CHECK(job.finished == 0);
  });
  CHECK(outcome.code == StatusCode::err_rdma_op && outcome.reroutable && !outcome.unfinished.empty());
  CHECK_TEXT(outcome.message, "no answer from the peer's NIC within the retry budget");
  Interface(1).deaf(false);
  Interface(3).deaf(false);
  std::this_thread::sleep_for(400ms);
  for (const Op op : kBoth) succeed(p, op, *mine, *theirs, blocks);
}

void broken() {  // queue pairs forced to the error state under load
  Config a = settings(0, 2);
  a.qp_per_transfer = 2;
  a.max_recoveries = 100;
  Pair p(a, settings(1, 2));
  auto mine = p.buffer(false, 16 << 20, 3), theirs = p.buffer(true, 16 << 20, 4);
  for (uint32_t i = 0; i < 6; ++i) {
    succeed(p, kBoth[i % 2], *mine, *theirs, random_blocks(200, 64 << 10, 256, i), [&](TestJob& job) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5 + 10 * i));
      p.back_a->break_queues();
      while (i > 3 && job.finished == 0 && job.told < 4 << 20) std::this_thread::sleep_for(1ms);
      if (i > 3) p.back_a->break_queues();
    });
  }
  CHECK(p.counter(false, "rails_failed") >= 6);
}

void denied() {
  Pair p(settings(0), settings(1));
  auto mine = p.buffer(false, 1 << 20, 1), theirs = p.buffer(true, 1 << 20, 2),
       gone = p.buffer(true, 1 << 20, 3);
  auto route = p.prepare(*mine, *gone).route;
  p.drop(true, *gone);
  const auto before = gone->bytes;
  for (const Op op : kBoth) {
    auto job = p.job(op, *mine, *gone, route, {{0, 0, 50'000}});
    p.back_a->submit(job);
    const Outcome outcome = job->wait();
    CHECK(outcome.code == StatusCode::err_denied && !outcome.reroutable);
    succeed(p, op, *mine, *theirs, {{0, 0, 1 << 20}});
  }
  CHECK(before == gone->bytes);
}

void garbage() {  // random UDP to the RoCE port of both sides
  Pair p(settings(0), settings(1));
  auto mine = p.buffer(false, 4 << 20, 1), theirs = p.buffer(true, 4 << 20, 2);
  std::atomic<bool> done{false};
  std::thread thrower([&] {
    std::mt19937 g(1);
    const int fd = ::socket(AF_INET, SOCK_DGRAM, 0);
    std::string packet;
    while (!done) {
      for (const char* address : {"10.8.0.1", "10.8.0.2"}) {
        sockaddr_in to{};
        to.sin_family = AF_INET;
        to.sin_port = htons(4791);
        ::inet_pton(AF_INET, address, &to.sin_addr);
        packet.resize(1 + g() % 1400);
        for (char& c : packet) c = char(g());
        ::sendto(fd, packet.data(), packet.size(), 0, reinterpret_cast<sockaddr*>(&to), sizeof to);
      }
      std::this_thread::sleep_for(1ms);
    }
    ::close(fd);
  });
  for (uint32_t i = 0; i < 4; ++i)
    succeed(p, kBoth[i % 2], *mine, *theirs, random_blocks(60, 64 << 10, 64, i));
  done = true;
  thrower.join();
  CHECK(p.counter(false, "rails_failed") == 0);
}

void cancel() {  // the path is dead: the status ends within the bound, and nothing lands afterwards
  for (const bool silent : {false, true}) {
    Config a = settings(0);
    a.retry_count = 6;
    a.timeout = 18;  // 1 s: the retry budget would be 7 s
    a.quiesce = 500ms;
    a.spare_nics = 0;
    Pair p(a, settings(1));
    auto mine = p.buffer(false, 4 << 20, 1), theirs = p.buffer(true, 4 << 20, 2);
    for (const Op op : kBoth) {
      auto route = p.prepare(*mine, *theirs).route;
      CHECK(route);
      Interface(1).deaf(true);
      auto job = p.job(op, *mine, *theirs, route, {{0, 0, 4 << 20}}, Clock::now() + 200ms);
      const auto start = Clock::now();
      p.a_sees_b.line = silent ? Line::silent : Line::open;
      p.back_a->submit(job);
      const Outcome outcome = job->wait();
      CHECK(outcome.code != StatusCode::success && !outcome.unfinished.empty());
      CHECK(Clock::now() - start >= 200ms && Clock::now() - start < 2s);
      p.a_sees_b.line = Line::open;
      Interface(1).deaf(false);
      const auto after = op == Op::write ? theirs->bytes : mine->bytes;
      std::this_thread::sleep_for(300ms);
      CHECK(after == (op == Op::write ? theirs->bytes : mine->bytes));
      succeed(p, op, *mine, *theirs, {{0, 0, 1 << 20}});
    }
  }
}

/// Moves 64 KiB messages, all from one buffer to one as perftest does, and prints MB/s (2^20).
void speed(Op op) {
  Config a = settings(0);
  Pair p(a, settings(1));
  auto mine = p.buffer(false, 64 << 10, 1), theirs = p.buffer(true, 64 << 10, 2);
  auto route = p.prepare(*mine, *theirs).route;
  const std::vector<Segment> list(500, Segment{0, 0, 64 << 10});
  double best = 0;
  for (int i = 0; i < 3; ++i) {
    auto job = p.job(op, *mine, *theirs, route, list);
    const auto start = Clock::now();
    p.back_a->submit(job);
    CHECK(job->wait().code == StatusCode::success);
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    best = std::max(best, 500.0 / 16 / seconds);
  }
  std::printf("%.2f\n", best);
}

const std::map<std::string, std::function<void()>> kScenarios = {
    {"bytes", bytes},
    {"saturation", saturation},
    {"rails", rails},
    {"failover", failover},
    {"broken", broken},
    {"denied", denied},
    {"garbage", garbage},
    {"cancel", cancel},
    {"speed-write", [] { speed(Op::write); }},
    {"speed-read", [] { speed(Op::read); }},
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2 || !kScenarios.contains(argv[1])) return 2;
  kScenarios.at(argv[1])();
  std::printf("passed\n");
  return 0;
}
