// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// What each stage of a put of 8 bytes costs on this machine: docs/softnic.md, "What it costs".
#pragma once
#include <sched.h>

#include <chrono>

#include "src/transport/ibgda/softnic/decode.hpp"
#include "tests/ibgda/softnic_bench.hpp"

class Stopwatch {
 public:
  template <class Body>
  void time(Body body) {
    const auto start = std::chrono::steady_clock::now();
    body();
    spent_ += std::chrono::steady_clock::now() - start;
  }
  double ns(uint64_t operations) const {
    return std::chrono::duration<double, std::nano>(spent_).count() / operations;
  }

 private:
  std::chrono::steady_clock::duration spent_{};
};

/// One thread does everything in turn, 64 puts of 8 inline bytes at a time: so each stage is timed alone.
inline void stages(Family family, uint64_t count) {
  constexpr uint32_t kBatch = 64;
  Bench b(family, {.depth = 256});
  Stopwatch encode, ring, decoded, served, taken;
  Request r = b.write(8);
  r.flags = kInline;
  for (uint64_t i = 0; i < count; i += kBatch) {
    const uint64_t begin = b.position;
    uint32_t unit = 0;
    encode.time([&] {
      for (uint32_t k = 0; k < kBatch; ++k) {
        r.flags = k + 1 == kBatch ? kInline | kSignaled : uint32_t(kInline);
        unit = b.encode(r);
        b.position += unit;
      }
    });
    b.position = begin;
    ring.time([&] { b.ring(kBatch * unit); });
    decoded.time([&] {
      std::string wrong;
      for (uint32_t k = 0; k < kBatch; ++k) {
        static_cast<void>(decode(b.queue, begin + k * unit, wrong));
        if (!wrong.empty()) complain(wrong);
      }
    });
    served.time([&] { b.nic.step(); });
    Completion c;
    taken.time([&] {
      if (!b.wait(c) || c.failed || c.completed != b.position) complain("a batch was not done");
    });
  }
  for (const std::string& sentence : b.nic.violations()) complain(sentence);
  if (mistakes != 0) return;
  fprintf(stderr, "ns of a put: encode %.1f, ring %.1f, decode %.1f, the NIC in all %.1f, completion %.1f\n",
          encode.ns(count), ring.ns(count), decoded.ns(count), served.ns(count), taken.ns(count));
}

/// The NIC's thread against this one, which posts over 8 queues in turn, 16 puts and a doorbell at a time.
inline void rate(Family family, uint64_t count) {
  constexpr uint32_t kQueues = 8, kBatch = 16;
  Arena arena;
  std::vector<unsigned char> memory(4096);
  SoftNic nic([&](uint64_t bytes) { return arena(bytes); });
  std::vector<Queue> queues(kQueues);
  for (Queue& queue : queues) {
    nic.create_queue(&queue, {.family = family, .depth = 256});
    nic.connect(
        &queue,
        {.address = Bench::kThere, .bytes = 4096, .rkey = 7, .mapped = Bench::address(memory.data())});
  }
  uint64_t value = 0, posted[kQueues] = {}, taken[kQueues] = {};
  Request r{
      .op = Op::write, .length = 8, .local = Bench::address(&value), .remote = Bench::kThere, .rkey = 7};
  nic.start();
  Stopwatch all;
  all.time([&] {
    for (uint64_t i = 0; i < count + kQueues * kBatch; i += kBatch) {  // the last round only waits
      const uint32_t q = i / kBatch % kQueues;
      Queue& queue = queues[q];
      with_family(family, [&](auto f) {
        for (uint64_t tries = 0; taken[q] + (i < count ? 128 : 0) < posted[q]; ++tries) {
          Completion c;
          if (f.take(queue, c)) {
            if (c.failed) return complain("a put failed");
            queue.completed = c.completed;
            taken[q] += kBatch;
          } else if (tries > 1'000'000) {
            return complain("a put was not done");
          } else if (tries > 1000) {
            sched_yield();
          }
        }
        if (i >= count) return;
        for (uint32_t k = 0; k < kBatch; ++k) {
          r.flags = k + 1 == kBatch ? kInline | kSignaled : uint32_t(kInline);
          value = i + k;
          r.remote = Bench::kThere + 64 * q;
          f.encode(queue, queue.published, r);
          if constexpr (requires { f.publish(queue, queue.published, r); })
            f.publish(queue, queue.published, r);
          __atomic_store_n(&queue.published, queue.published + f.units(r), __ATOMIC_RELEASE);
        }
        f.ring(queue, queue.published);
        posted[q] += kBatch;
      });
    }
  });
  nic.stop();
  for (const std::string& sentence : nic.violations()) complain(sentence);
  uint64_t last = 0;
  std::memcpy(&last, &memory[64 * ((count / kBatch - 1) % kQueues)], 8);
  if (last != count - 1) complain("the last put is not there");
  if (mistakes == 0)
    fprintf(stderr, "%.2f million puts a second over %u queues\n", 1e3 / all.ns(count), kQueues);
}
