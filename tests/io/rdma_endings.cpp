// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// More of rdma_scenarios.cpp: stopping, set-up, threads.
#include <dlfcn.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "rdma_scenarios.hpp"

namespace {

// ---- stopping ------------------------------------------------------------------------------------------

void cancel(bool silent_peer, bool by_deadline) {
  fake_reset(2);
  fake_latency(100);
  {
    Pair p(settings(0, 2), settings(1, 2));
    auto mine = p.buffer(false, 4096 * 600, 3), theirs = p.buffer(true, 4096 * 600, 4);
    auto route = p.prepare(*mine, *theirs).route;
    for (const Op op : kBoth) {
      auto job = p.job(op, *mine, *theirs, route, random_blocks(500, 4096, 600, 2));
      if (by_deadline) job->until = Clock::now() + 60ms;
      fake_unplug(0, 60'000);
      p.back_a->submit(job);
      if (silent_peer) p.a_sees_b.line = Line::silent;
      std::this_thread::sleep_for(30ms);
      CHECK(job->finished == 0);
      const auto start = Clock::now();
      if (!by_deadline) {
        job->halt = true;
        p.back_a->nudge(*job);
      }
      const Outcome outcome = job->wait();
      CHECK(outcome.code != StatusCode::success && !outcome.reroutable && !outcome.unfinished.empty());
      CHECK(Clock::now() - start < 2s);
      // A write waits for the peer's word (or its time-out); a read is safe once this side is quiet.
      CHECK(!silent_peer || op == Op::read || Clock::now() - start >= 300ms);
      const auto before = op == Op::write ? theirs->bytes : mine->bytes;
      fake_plug(0);
      std::this_thread::sleep_for(50ms);
      CHECK(before == (op == Op::write ? theirs->bytes : mine->bytes));
      p.a_sees_b.line = Line::open;
      std::this_thread::sleep_for(600ms);
      run(p, op, *mine, *theirs, random_blocks(500, 4096, 600, 2));
    }
  }
  orderly();
}

void cancel_while_moving() {
  fake_reset(2);
  fake_latency(100);
  {
    Pair p(settings(0, 2), settings(1, 2));
    auto mine = p.buffer(false, 4096 * 3000, 3), theirs = p.buffer(true, 4096 * 3000, 4);
    auto route = p.prepare(*mine, *theirs).route;
    auto one = p.job(Op::write, *mine, *theirs, route, random_blocks(2900, 4096, 3000, 2));
    p.back_a->submit(one);
    one->halt = true;
    p.back_a->nudge(*one);
    const Outcome outcome = one->wait();
    uint64_t rest = 0;
    for (const Segment& s : outcome.unfinished) rest += s.bytes;
    CHECK(outcome.unfinished.empty() ? outcome.code == StatusCode::success
                                     : rest + one->told == one->bytes());
    auto stopped = p.job(Op::write, *mine, *theirs, route, {{0, 0, 10}});
    stopped->halt = true;
    p.back_a->submit(stopped);
    CHECK(stopped->wait().code == StatusCode::err_cancelled);
    auto late = p.job(Op::write, *mine, *theirs, route, {{0, 0, 10}}, Clock::now() - 1s);
    p.back_a->submit(late);
    CHECK(late->wait().code == StatusCode::err_cancelled);
  }
  orderly();
}

void peer_lost() {
  fake_reset(2);
  fake_latency(100);
  {
    Pair p(settings(0, 2), settings(1, 2));
    auto mine = p.buffer(false, 4096 * 600, 3), theirs = p.buffer(true, 4096 * 600, 4);
    auto route = p.prepare(*mine, *theirs).route;
    fake_unplug(1, 60'000);
    auto job = p.job(Op::write, *mine, *theirs, route, random_blocks(500, 4096, 600, 2));
    p.back_a->submit(job);
    std::this_thread::sleep_for(10ms);
    p.a_sees_b.line = Line::cut;
    p.back_a->lost(p.a_sees_b);
    p.back_b->lost(p.b_sees_a);
    const Outcome outcome = job->wait(2s);
    CHECK(outcome.code == StatusCode::err_peer_lost && !outcome.reroutable);
    CHECK_TEXT(outcome.message, "lost");
    auto next = p.job(Op::write, *mine, *theirs, route, {{0, 0, 10}});
    p.back_a->submit(next);
    CHECK(next->wait().code == StatusCode::err_peer_lost);
    CHECK(p.counter(true, "passive_rails") == 0);
    // The peer comes back: another route, another link.
    p.a_sees_b.line = Line::open;
    fake_plug(1);
    run(p, Op::write, *mine, *theirs, random_blocks(500, 4096, 600, 2));
    // The connection breaks under a repair.
    fake_unplug(1, 10);
    auto third = p.job(Op::write, *mine, *theirs, p.prepare(*mine, *theirs).route, {{0, 0, 4096}});
    p.a_sees_b.line = Line::cut;
    p.back_a->submit(third);
    CHECK(third->wait(2s).code == StatusCode::err_peer_lost);
  }
  orderly();
}

void revoked() {
  fake_reset(2);
  {
    Pair p(settings(0, 2), settings(1, 2));
    auto mine = p.buffer(false, 1 << 20, 3), theirs = p.buffer(true, 1 << 20, 4),
         others = p.buffer(true, 1 << 20, 5);
    auto route = p.prepare(*mine, *theirs).route, kept = p.prepare(*mine, *others).route;
    fake_latency(20'000);
    auto job = p.job(Op::write, *mine, *theirs, route, {{0, 0, 1 << 20}});
    auto other = p.job(Op::write, *mine, *others, kept, {{0, 0, 1 << 20}});
    fake_unplug(1, 60'000);
    p.back_a->submit(job);
    p.back_a->submit(other);
    std::thread plug([] {
      std::this_thread::sleep_for(100ms);
      fake_plug(1);
    });
    p.back_a->revoke(*route);
    CHECK(job->finished == 1);
    const Outcome outcome = job->wait();
    CHECK(outcome.code == StatusCode::err_not_found && !outcome.reroutable);
    plug.join();
    fake_latency(5);
    CHECK(other->wait().code == StatusCode::success || true);
    p.back_a->revoke(*route);  // nothing left: at once
  }
  orderly();
}

// ---- set-up --------------------------------------------------------------------------------------------

void wrong_pairing() {  // NICs of two networks: those that reach each other are found
  fake_reset(4);
  {
    Config a = settings(0), b = settings(1);
    b.devices = {"fake3", "fake1"};
    b.topology->nics = {b.topology->nics[3], b.topology->nics[1]};
    a.nics_per_transfer = b.nics_per_transfer = 2;
    Pair p(a, b);
    auto mine = p.buffer(false, 8 << 20, 3), theirs = p.buffer(true, 8 << 20, 4);
    run(p, Op::write, *mine, *theirs, {{0, 0, 8 << 20}});
    CHECK(p.counter(false, "rails_up") == 2);
    CHECK(p.counter(false, "rails_failed") == 0);
  }
  orderly();
}

void unreachable() {  // a route is promised only after a write came through
  fake_reset(2);
  {
    Pair p(settings(0, 2), settings(1, 2));
    auto mine = p.buffer(false, 1000, 3), theirs = p.buffer(true, 1000, 4);
    fake_unplug(1, 20);
    const Prepared prepared = p.prepare(*mine, *theirs);
    CHECK(!prepared.route);
    CHECK_TEXT(prepared.reason, "fake0 -> fake1: no answer");
    CHECK(p.counter(true, "passive_rails") == 0);
    p.a_sees_b.line = Line::silent;
    const auto start = Clock::now();
    std::this_thread::sleep_for(600ms);
    CHECK(!p.prepare(*mine, *theirs, 200ms).route);
    CHECK(Clock::now() - start < 600ms + 1s);
  }
  orderly();
}

void no_nics() {
  Region region;
  region.id = 1;
  region.bytes = 100;
  region.location = Location::cpu;
  region.address = reinterpret_cast<uintptr_t>(&region);
  const auto reason = [&](Config c) {
    RdmaBackend backend(std::move(c));
    CHECK(!backend.attach(region));
    TestPeer peer;
    const Prepared prepared = backend.prepare(region, {}, peer, "x", Clock::now() + 1s);
    CHECK(!prepared.route);
    CHECK_TEXT(prepared.reason, backend.unavailable().c_str());
    return prepared.reason;
  };
  fake_reset(0);
  CHECK_TEXT(reason(settings(0, 0)), "no RDMA device");
  Config missing = settings(0, 0);
  missing.library = "/nonexistent/libibverbs.so.1";
  CHECK_TEXT(reason(missing), "apt-get install");
  fake_reset(2);
  Config named = settings(0, 2);
  named.devices = {"mlx5_7"};
  CHECK_TEXT(reason(named), "this machine has: fake0 fake1");
  // A port that is down: told at registration, and in the reason at both ends.
  fake_port(0, 0);
  {
    Pair p(settings(0, 2), settings(1, 2));
    auto mine = p.buffer(false, 1000, 3), theirs = p.buffer(true, 1000, 4);
    CHECK_TEXT(p.prepare(*mine, *theirs).reason, "fake0: no active port");
  }
  fake_port(0, 1);
  fake_port(1, 0);
  {
    Pair p(settings(0, 2), settings(1, 2));
    auto mine = p.buffer(false, 1000, 3), theirs = p.buffer(true, 1000, 4);
    CHECK_TEXT(p.prepare(*mine, *theirs).reason, "at B: rdma: fake1: no active port");
  }
  orderly();
}

void refusals() {
  fake_reset(2);
  const auto refused = [](auto change, const char* text) {
    Config c = settings(0, 2);
    change(c);
    try {
      RdmaBackend backend(c);
      CHECK(!"was not refused");
    } catch (const mori::core::ConfigError& error) {
      CHECK_TEXT(error.what(), text);
    }
  };
  refused([](Config& c) { c.qp_per_transfer = 0; }, "qp_per_transfer=0: allowed are 1 to 32");
  refused([](Config& c) { c.mtu = 1500; }, "mtu=1500");
  refused([](Config& c) { c.post_batch_size = 0; }, "post_batch_size=0");
  refused([](Config& c) { c.retry_count = 8; }, "retry_count=8");
  refused([](Config& c) { c.nics_per_transfer = 17; }, "num_nics_per_transfer=17");
}

void gpu_memory() {  // a region in the middle of an allocation: the dma-buf's offset decides
  fake_reset(2);
  const int fd = ::memfd_create("gpu", 0);
  CHECK(::ftruncate(fd, 1 << 20) == 0);
  auto* memory = static_cast<uint8_t*>(::mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  Region region;
  region.id = 77;
  region.location = Location::gpu;
  region.device = 0;
  region.address = 0x1000 / 2;  // no host address
  region.bytes = 100'000;
  constexpr uint64_t kOffset = 8192 + 48;
  Config b = settings(1, 2);
  b.export_dmabuf = [&](const Region&, std::string*) { return rdma::Dmabuf{Fd(::dup(fd)), kOffset}; };
  {
    Pair p(settings(0, 2), b);
    auto mine = p.buffer(false, 100'000, 1);
    Buffer theirs;
    theirs.region = region;
    theirs.attachment = p.back_b->attach(region).value();
    auto prepared = p.prepare(*mine, theirs);
    CHECK(prepared.route);
    auto job = p.job(Op::write, *mine, theirs, prepared.route, {{10, 20, 50'000}});
    p.back_a->submit(job);
    CHECK(job->wait().code == StatusCode::success);
    CHECK(std::memcmp(memory + kOffset + 20, &mine->bytes[10], 50'000) == 0);
    CHECK(memory[kOffset + 19] == 0 && memory[kOffset + 50'020] == 0);
    p.back_b->detach(region);
  }
  orderly();
  fake_limits(1000, 4, 64, 0);
  {
    Pair p(settings(0, 2), b);
    auto mine = p.buffer(false, 1000, 1);
    Buffer theirs;
    theirs.region = region;
    theirs.attachment = p.back_b->attach(region).value();
    const Prepared prepared = p.prepare(*mine, theirs);
    CHECK(!prepared.route);
    CHECK_TEXT(prepared.reason, "dma-buf refused");
    CHECK_TEXT(prepared.reason, "as peer memory: fake1: Bad address");
    p.back_b->detach(region);
  }
  orderly();
}

void messages() {  // whatever arrives is decoded or refused
  using namespace rdma;
  Attachment a;
  a.address = 0x1234567890;
  a.reason = "because";
  for (int i = 0; i < 3; ++i) {
    NicCard card;
    card.index = uint8_t(i), card.rkey = 77u + unsigned(i), card.gbit_per_s = 400,
    card.name = "mlx5_" + std::to_string(i);
    card.address.gid.raw[3] = uint8_t(i), card.address.mtu = 5, card.address.layer = 2, card.address.lid = 9;
    a.nics.push_back(card);
  }
  RailEnd e;
  e.epoch = 0x8877665544332211, e.nic = 3, e.read_depth = 16, e.address = a.nics[1].address, e.pad = 4711,
  e.pad_rkey = 5;
  e.queues = {{0xabcdef, 0x123456}, {1, 2}};
  CHECK(decode_attachment(encode(a)) == a);
  CHECK(decode_answer(encode_answer(e)) == e);
  std::string_view open;
  const std::string opened = encode_open(e), closed = encode_close(42);
  open = opened;
  CHECK(decode_verb(open) == Verb::open && decode_end(open) == e);
  std::string_view close = closed;
  CHECK(decode_verb(close) == Verb::close && decode_epoch(close) == 42);
  const auto survives = [](const std::string& bytes) {
    int accepted = 0;
    const auto attempt = [&](auto f) {
      try {
        f();
        ++accepted;
      } catch (const mori::core::TransportError&) {
      }
    };
    attempt([&] { decode_attachment(bytes); });
    attempt([&] { decode_answer(bytes); });
    attempt([&] {
      std::string_view rest = bytes;
      decode_verb(rest) == Verb::open ? void(decode_end(rest)) : void(decode_epoch(rest));
    });
    return accepted;
  };
  std::mt19937 g(1);
  for (const std::string& good : {encode(a), encode_answer(e), opened, closed}) {
    CHECK(survives(good) >= 1);
    for (size_t n = 0; n < good.size(); ++n) CHECK(survives(good.substr(0, n)) == 0);
    CHECK(survives(good + "x") == 0);
    for (int i = 0; i < 20'000; ++i) {
      std::string bad = good;
      for (uint32_t flips = 1 + g() % 4; flips > 0; --flips) bad[g() % bad.size()] = char(g());
      survives(bad);
    }
  }
  // The backend's own entry: garbage is answered by an exception, and nothing is left behind.
  fake_reset(2);
  {
    Pair p(settings(0, 2), settings(1, 2));
    auto theirs = p.buffer(true, 1000, 1);
    std::vector<Fd> pass;
    for (int i = 0; i < 3000; ++i) {
      std::string bad = opened;
      for (uint32_t flips = 1 + g() % 8; flips > 0; --flips) bad[g() % bad.size()] = char(g());
      try {
        p.back_b->answer(p.b_sees_a, bad, pass);
      } catch (const mori::core::TransportError&) {
      }
    }
    CHECK(p.counter(true, "passive_rails") <= 64);
    p.back_b->lost(p.b_sees_a);
    CHECK(p.counter(true, "passive_rails") == 0);
  }
  orderly();
}

// ---- threads -------------------------------------------------------------------------------------------

void concurrent() {  // many threads, faults at random: every job ends once, every success is right
  fake_reset(4);
  fake_latency(10);
  {
    Config a = settings(0);
    a.qp_per_transfer = 2;
    a.nics_per_transfer = 2;
    a.max_send_wr = 64;
    a.max_recoveries = 1000;
    Pair p(a, settings(1));
    std::atomic<bool> done{false};
    std::atomic<int> succeeded{0};
    std::thread chaos([&] {
      std::mt19937 g(7);
      while (!done) {
        fake_fail(int(g() % 2) * 2, int(g() % 300), verbs::kWcRetryExc);
        if (g() % 4 == 0) p.back_a->break_queues();
        std::this_thread::sleep_for(std::chrono::milliseconds(3 + g() % 10));
      }
    });
    std::vector<std::thread> threads;
    for (uint32_t t = 0; t < 4; ++t) {
      threads.emplace_back([&, t] {
        auto mine = p.buffer(false, 512 * 400, t), theirs = p.buffer(true, 512 * 400, t + 50);
        for (uint32_t i = 0; i < 25; ++i) {
          const Op op = kBoth[(i + t) % 2];
          auto prepared = p.prepare(*mine, *theirs);
          if (!prepared.route) {
            std::this_thread::sleep_for(20ms);
            continue;
          }
          const auto list = random_blocks(300, 512, 400, i);
          const auto before = op == Op::write ? theirs->bytes : mine->bytes;
          auto job = p.job(op, *mine, *theirs, prepared.route, list);
          p.back_a->submit(job);
          while (t % 2 == 0 && job->finished == 0 && p.back_a->help(*job)) {
          }
          if (i % 7 == 3) {
            job->halt = true;
            p.back_a->nudge(*job);
          }
          const Outcome outcome = job->wait();
          uint64_t rest = 0;
          for (const Segment& s : outcome.unfinished) rest += s.bytes;
          CHECK(rest + job->told == job->bytes());
          if (outcome.code != StatusCode::success) continue;
          ++succeeded;
          verify(op, *mine, *theirs, before, list);
        }
        p.drop(false, *mine), p.drop(true, *theirs);
      });
    }
    for (std::thread& t : threads) t.join();
    done = true;
    chaos.join();
    CHECK(succeeded > 20);
  }
  orderly();
}

double cpu_seconds() {
  timespec t{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return double(t.tv_sec) + double(t.tv_nsec) * 1e-9;
}

void idle() {
  fake_reset(4);
  {
    Pair p(settings(0), settings(1));
    auto mine = p.buffer(false, 1 << 20, 3), theirs = p.buffer(true, 1 << 20, 4);
    run(p, Op::write, *mine, *theirs, {{0, 0, 1 << 20}});
    std::this_thread::sleep_for(50ms);
    const double before = cpu_seconds();
    std::this_thread::sleep_for(1s);
    CHECK(cpu_seconds() - before < 0.005);
    // A job that waits for its deadline only: still no spinning.
    fake_unplug(0, 60'000);
    auto job =
        p.job(Op::read, *mine, *theirs, p.prepare(*mine, *theirs).route, {{0, 0, 100}}, Clock::now() + 500ms);
    const double start = cpu_seconds();
    p.back_a->submit(job);
    CHECK(job->wait().code == StatusCode::err_cancelled);
    CHECK(cpu_seconds() - start < 0.05);
  }
  orderly();
}

}  // namespace

Scenarios ending() {
  return {
      {"cancel", [] { cancel(false, false); }},
      {"cancel-silent-peer", [] { cancel(true, false); }},
      {"deadline", [] { cancel(false, true); }},
      {"cancel-while-moving", cancel_while_moving},
      {"peer-lost", peer_lost},
      {"revoked", revoked},
      {"wrong-pairing", wrong_pairing},
      {"unreachable", unreachable},
      {"no-nics", no_nics},
      {"refusals", refusals},
      {"gpu-memory", gpu_memory},
      {"messages", messages},
      {"concurrent", concurrent},
      {"idle", idle},
  };
}
