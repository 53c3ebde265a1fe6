// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Scenarios of the rdma backend over the fake library:   rdma_scenarios FAKE_LIBRARY SCENARIO
// Exit status 0: as specified. test_rdma_faults.py runs each under sanitizers. Here: bytes, and ways that
// break.
#include "rdma_scenarios.hpp"

namespace {

// ---- bytes ---------------------------------------------------------------------------------------------

void bytes() {
  fake_reset(4);
  {
    Pair p(settings(0), settings(1));
    for (const Op op : kBoth) {
      for (const size_t size : {1ul, 63ul, 64ul, 65ul, 4096ul, 100'001ul, (3ul << 20) + 5}) {
        auto mine = p.buffer(false, size + 7, 1), theirs = p.buffer(true, size + 9, 2);
        run(p, op, *mine, *theirs, {{3, 5, size}});
        p.drop(false, *mine), p.drop(true, *theirs);
      }
      auto mine = p.buffer(false, 4096 * 600, 3), theirs = p.buffer(true, 4096 * 600, 4);
      run(p, op, *mine, *theirs, random_blocks(500, 4096, 600, 5));
      run(p, op, *mine, *theirs, random_blocks(3, 4096, 600, 6));
      p.drop(false, *mine), p.drop(true, *theirs);
    }
    CHECK(fake_inline_requests() > 0);
    CHECK(p.counter(false, "rails_up") == 1 && p.counter(true, "passive_rails") == 1);
  }
  orderly();
}

void gathers() {  // contiguous at the peer, scattered here
  fake_reset(2);
  {
    Config a = settings(0, 2);
    a.max_sge = 4;
    Pair p(a, settings(1, 2));
    auto mine = p.buffer(false, 64 << 10, 1), theirs = p.buffer(true, 64 << 10, 2);
    std::vector<Segment> list;
    for (uint64_t i = 0; i < 30; ++i) list.push_back({(29 - i) * 1000, 100 + i * 500, 500});
    for (const Op op : kBoth) run(p, op, *mine, *theirs, list);
    CHECK(fake_gathers() >= 14);
  }
  orderly();
}

void saturation() {  // thousands of blocks through queues of eight
  fake_reset(2);
  fake_limits(8, 2, 0, 1);
  {
    Config a = settings(0, 2);
    a.qp_per_transfer = 3;
    Pair p(a, settings(1, 2));
    auto mine = p.buffer(false, 256 * 6000, 1), theirs = p.buffer(true, 256 * 6000, 2);
    for (const Op op : kBoth) run(p, op, *mine, *theirs, random_blocks(5000, 256, 6000, 3));
    CHECK(p.counter(false, "queue_full") > 0);
    CHECK(fake_inline_requests() == 0);
  }
  orderly();
}

void chunks() {
  fake_reset(2);
  {
    Config a = settings(0, 2);
    a.chunking = true;
    a.chunk_bytes = 4096;
    a.max_chunks = 1000;
    a.qp_per_transfer = 2;
    Pair p(a, settings(1, 2));
    auto mine = p.buffer(false, 1 << 20, 1), theirs = p.buffer(true, 1 << 20, 2);
    const uint64_t before = fake_requests();
    run(p, Op::write, *mine, *theirs, {{0, 0, 1 << 20}});
    CHECK(fake_requests() - before >= 256);
  }
  orderly();
}

void rails() {
  fake_reset(4);
  fake_latency(200);
  {
    Config a = settings(0);
    a.nics_per_transfer = 2;
    a.traffic_class = 96;
    a.retry_count = 5;
    a.window_bytes = 4 << 20;
    Config b = settings(1);
    b.nics_per_transfer = 2;
    Pair p(a, b);
    auto mine = p.buffer(false, 64 << 20, 1), theirs = p.buffer(true, 64 << 20, 2);
    for (const Op op : kBoth) run(p, op, *mine, *theirs, {{0, 0, 64 << 20}});
    CHECK(p.counter(false, "rails_up") == 2);
    CHECK(fake_bytes(0) > 16 << 20 && fake_bytes(2) > 16 << 20);
    CHECK(fake_last_retry() == 6 || fake_last_retry() == 5);
    run(p, Op::write, *mine, *theirs, random_blocks(900, 1000, 1000, 9));
  }
  orderly();
}

// ---- broken queue pairs and paths ----------------------------------------------------------------------

void broken(int status) {
  fake_reset(4);
  {
    Pair p(settings(0), settings(1));
    auto mine = p.buffer(false, 4096 * 600, 3), theirs = p.buffer(true, 4096 * 600, 4);
    for (const Op op : kBoth) {
      CHECK(p.prepare(*mine, *theirs).route);
      fake_fail(0, 100, status);
      run(p, op, *mine, *theirs, random_blocks(500, 4096, 600, uint32_t(status)));
    }
    CHECK(p.counter(false, "rails_failed") == 2);
    CHECK(p.counter(true, "passive_rails") == 1);  // the old ends are gone
  }
  orderly();
}

void denied() {  // the peer's NIC refuses: no repetition, others go on
  fake_reset(2);
  fake_latency(50);
  {
    Pair p(settings(0, 2), settings(1, 2));
    auto mine = p.buffer(false, 1 << 20, 1), theirs = p.buffer(true, 1 << 20, 2),
         gone = p.buffer(true, 1 << 20, 3);
    auto good = p.prepare(*mine, *theirs).route, bad = p.prepare(*mine, *gone).route;
    p.drop(true, *gone);
    const auto before = theirs->bytes;
    const auto list = random_blocks(200, 4096, 256, 5);
    auto one = p.job(Op::write, *mine, *theirs, good, list),
         two = p.job(Op::write, *mine, *gone, bad, {{0, 0, 9000}});
    p.back_a->submit(one);
    p.back_a->submit(two);
    const Outcome outcome = two->wait();
    CHECK(outcome.code == StatusCode::err_denied && !outcome.reroutable && outcome.unfinished.size() == 1);
    CHECK_TEXT(outcome.message, "refused the access");
    CHECK_TEXT(outcome.message, "fake0 -> fake1 of B");
    CHECK(one->wait().code == StatusCode::success);
    verify(Op::write, *mine, *theirs, before, list);
    CHECK(gone->bytes == [&] {
      Buffer b;
      b.bytes.resize(1 << 20);
      fill(b, 3);
      return b.bytes;
    }());
  }
  orderly();
}

// A packet of a broken queue pair that a switch holds back must not land once the job is done: the user may
// have reused the memory. `detect` lets them land all the same, to show that this would be seen.
void ghosts(bool detect) {
  fake_reset(4);
  fake_latency(20);
  bool seen = false;
  {
    Pair p(settings(0), settings(1));
    auto mine = p.buffer(false, 4096 * 64, 3), theirs = p.buffer(true, 4096 * 64, 4);
    CHECK(p.prepare(*mine, *theirs).route);
    fake_ghosts(400, detect ? 1 : 0);
    fake_fail(0, 10, verbs::kWcRetryExc);
    run(p, Op::write, *mine, *theirs, random_blocks(64, 4096, 64, 1));
    std::fill(theirs->bytes.begin(), theirs->bytes.end(), uint8_t(0xee));  // reused
    std::this_thread::sleep_for(700ms);
    for (const uint8_t b : theirs->bytes) seen |= b != 0xee;
    CHECK(seen == detect);
    CHECK((fake_ghosts_landed() > 0) == detect);
    fake_ghosts(-1, 0);
  }
  orderly();
}

void failover() {  // one NIC's cable: the spare NIC takes over
  fake_reset(4);
  fake_latency(300);
  {
    Pair p(settings(0), settings(1));
    auto mine = p.buffer(false, 4096 * 600, 3), theirs = p.buffer(true, 4096 * 600, 4);
    const auto list = random_blocks(500, 4096, 600, 2);
    for (const Op op : kBoth) {
      auto prepared = p.prepare(*mine, *theirs);
      CHECK(prepared.route);
      const auto before = op == Op::write ? theirs->bytes : mine->bytes;
      auto job = p.job(op, *mine, *theirs, prepared.route, list);
      p.back_a->submit(job);
      const int nic = op == Op::write ? 0 : 2;
      for (const uint64_t moved = fake_bytes(nic); fake_bytes(nic) == moved;)
        std::this_thread::sleep_for(1ms);
      fake_unplug(nic, 30);
      CHECK(job->wait().code == StatusCode::success);
      verify(op, *mine, *theirs, before, list);
      fake_plug(0), fake_plug(2);
      std::this_thread::sleep_for(600ms);  // until a pair of NICs that failed is tried again
    }
    CHECK(fake_bytes(0) > 0 && fake_bytes(2) > 0);
  }
  orderly();
}

void cut_off() {  // no way left: what is unfinished is handed back, exactly
  fake_reset(4);
  fake_latency(20000);
  {
    Pair p(settings(0), settings(1));
    auto mine = p.buffer(false, 4096 * 600, 3), theirs = p.buffer(true, 4096 * 600, 4);
    const auto list = random_blocks(500, 4096, 600, 2);
    auto route = p.prepare(*mine, *theirs).route;
    auto before = theirs->bytes;
    auto job = p.job(Op::write, *mine, *theirs, route, list);
    p.back_a->submit(job);
    while (fake_bytes(0) + fake_bytes(2) == 0) std::this_thread::sleep_for(1ms);
    fake_unplug(0, 30);
    fake_unplug(2, 30);
    fake_latency(100);
    Outcome outcome = job->wait();
    CHECK(outcome.code == StatusCode::err_rdma_op && outcome.reroutable);
    CHECK_TEXT(outcome.message, "no answer from the peer's NIC");
    uint64_t rest = 0;
    for (const Segment& s : outcome.unfinished) rest += s.bytes;
    CHECK(rest + job->told == job->bytes() && rest > 0);
    // As the engine would: another backend carries the rest, and only that.
    for (const Segment& s : outcome.unfinished)
      std::memcpy(&theirs->bytes[s.remote], &mine->bytes[s.local], s.bytes);
    verify(Op::write, *mine, *theirs, before, list);
    // The next one is told at once, not after another retry budget.
    auto next = p.job(Op::read, *mine, *theirs, route, {{0, 0, 100}});
    p.back_a->submit(next);
    CHECK(next->wait(100ms).reroutable);
    fake_plug(0), fake_plug(2);
    std::this_thread::sleep_for(600ms);
    run(p, Op::write, *mine, *theirs, list);
  }
  orderly();
}

void port_event() {  // the event is faster than the retry budget
  fake_reset(4);
  fake_latency(200);
  {
    Pair p(settings(0), settings(1));
    auto mine = p.buffer(false, 4096 * 600, 3), theirs = p.buffer(true, 4096 * 600, 4);
    auto route = p.prepare(*mine, *theirs).route;
    const auto list = random_blocks(500, 4096, 600, 2);
    const auto before = theirs->bytes;
    auto job = p.job(Op::write, *mine, *theirs, route, list);
    fake_unplug(1, 5000);  // the retry budget is 5 s
    p.back_a->submit(job);
    std::this_thread::sleep_for(20ms);
    const auto start = Clock::now();
    fake_port(0, 0);
    CHECK(job->wait().code == StatusCode::success);
    CHECK(Clock::now() - start < 2s);
    verify(Op::write, *mine, *theirs, before, list);
    // Up again: its rail comes back by itself once the other one is lost.
    fake_plug(1);
    fake_port(0, 1);
    std::this_thread::sleep_for(50ms);
    fake_port(2, 0);
    std::this_thread::sleep_for(50ms);
    run(p, Op::write, *mine, *theirs, list);
  }
  orderly();
}

void device_dies() {
  fake_reset(4);
  {
    Pair p(settings(0), settings(1));
    auto mine = p.buffer(false, 1 << 20, 3), theirs = p.buffer(true, 1 << 20, 4);
    run(p, Op::write, *mine, *theirs, {{0, 0, 1 << 20}});
    fake_die(0);
    std::this_thread::sleep_for(50ms);
    run(p, Op::read, *mine, *theirs, {{0, 0, 1 << 20}});
    auto later = p.buffer(false, 1000, 5);
    run(p, Op::write, *later, *theirs, {{0, 0, 1000}});
  }
  orderly();
}

void posting_fails() {
  fake_reset(2);
  {
    Pair p(settings(0, 2), settings(1, 2));
    auto mine = p.buffer(false, 4096 * 600, 3), theirs = p.buffer(true, 4096 * 600, 4);
    CHECK(p.prepare(*mine, *theirs).route);
    fake_refuse_post(2);
    run(p, Op::write, *mine, *theirs, random_blocks(500, 4096, 600, 2));
    fake_garbage_completion();
    run(p, Op::read, *mine, *theirs, random_blocks(500, 4096, 600, 2));
    for (int i = 0; i < 20; ++i) {
      if (i % 3 == 0) p.back_a->break_queues();
      run(p, kBoth[i % 2], *mine, *theirs, random_blocks(500, 4096, 600, uint32_t(i)));
    }
  }
  orderly();
}

void gives_up() {  // a transfer that breaks every rail it meets is handed back, not tried for ever
  fake_reset(2);
  fake_latency(100);
  {
    Pair p(settings(0, 2), settings(1, 2));
    auto mine = p.buffer(false, 1 << 20, 3), theirs = p.buffer(true, 1 << 20, 4);
    auto route = p.prepare(*mine, *theirs).route;
    std::atomic<bool> done{false};
    std::thread breaker([&] {
      while (!done) {
        fake_fail(0, 3, verbs::kWcGeneral);
        std::this_thread::sleep_for(1ms);
      }
    });
    auto job = p.job(Op::write, *mine, *theirs, route, random_blocks(200, 4096, 256, 2));
    p.back_a->submit(job);
    const Outcome outcome = job->wait();
    done = true;
    breaker.join();
    CHECK(outcome.code == StatusCode::err_rdma_op && outcome.reroutable && !outcome.unfinished.empty());
  }
  orderly();
}

}  // namespace

Scenarios carrying() {
  return {
      {"bytes", bytes},
      {"gathers", gathers},
      {"saturation", saturation},
      {"chunks", chunks},
      {"rails", rails},
      {"broken-by-retries", [] { broken(verbs::kWcRetryExc); }},
      {"broken-locally", [] { broken(verbs::kWcLocQpOp); }},
      {"broken-by-flush", [] { broken(verbs::kWcFlush); }},
      {"broken-fatally", [] { broken(verbs::kWcFatal); }},
      {"denied", denied},
      {"late-packets", [] { ghosts(false); }},
      {"late-packets-would-be-seen", [] { ghosts(true); }},
      {"failover", failover},
      {"cut-off", cut_off},
      {"port-event", port_event},
      {"device-dies", device_dies},
      {"posting-fails", posting_fails},
      {"gives-up", gives_up},
  };
}

int main(int argc, char** argv) {
  Scenarios all = carrying();
  all.merge(ending());
  if (argc != 3 || !all.contains(argv[2])) {
    for (const auto& entry : all) std::printf("%s\n", entry.first.c_str());
    return argc == 1 ? 0 : 2;
  }
  library = argv[1];
  all.at(argv[2])();
  std::printf("passed\n");
  return 0;
}
