// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// A software NIC with one queue, posted to from one thread by the family's own encoder.
#pragma once
#include <time.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "src/transport/ibgda/providers/table.hpp"
#include "src/transport/ibgda/softnic/softnic.hpp"

using namespace mori;
using namespace mori::ibgda;

inline int mistakes = 0;
inline void complain(const std::string& what) {
  ++mistakes;
  printf("%s\n", what.c_str());
}

inline uint64_t random_state = 88172645463325252ull;
inline uint64_t next_random() {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return random_state;
}

/// Memory of rings; aligned, zero-filled, alive until the end.
struct Arena {
  std::vector<std::unique_ptr<char[]>> pieces;
  uint64_t operator()(uint64_t bytes) {
    pieces.push_back(std::make_unique<char[]>(bytes + 64));
    return (reinterpret_cast<uint64_t>(pieces.back().get()) + 63) / 64 * 64;
  }
};

/// A NIC with one queue to its own process's memory.
struct Bench {
  Arena arena;
  SoftNic nic;
  alignas(64) unsigned char here[4096] = {}, there[4096] = {};
  uint32_t lkey, rkey = 0x77;
  Queue queue{};
  uint64_t position;

  Bench(Family family, const QueueOptions& given = {}, const Faults& faults = {})
      : nic([this](uint64_t bytes) { return arena(bytes); }) {
    QueueOptions options = given;
    options.family = family;
    lkey = nic.add_region(address(here), sizeof here).local;
    nic.create_queue(&queue, options);
    // the peer has its memory at other addresses
    nic.connect(&queue, {.address = kThere, .bytes = sizeof there, .rkey = rkey, .mapped = address(there)});
    nic.set_faults(faults);
    position = queue.first_position;
  }
  static constexpr uint64_t kThere = 0x700000000000;
  static uint64_t address(const void* p) { return reinterpret_cast<uint64_t>(p); }

  Request write(uint32_t length) {
    Request r;
    r.op = Op::write;
    r.length = length;
    r.local = address(here);
    r.lkey = lkey;
    r.remote = kThere;
    r.rkey = rkey;
    return r;
  }
  /// Writes the entry where it belongs; not told to the NIC.
  uint32_t encode(const Request& r) {
    uint32_t units = 0;
    with_family(queue.family, [&](auto f) {
      units = f.units(r);
      f.encode(queue, position, r);
      if constexpr (requires { f.publish(queue, position, r); }) f.publish(queue, position, r);
    });
    return units;
  }
  void ring(uint32_t units) {
    position += units;
    __atomic_store_n(&queue.published, position, __ATOMIC_RELEASE);
    with_family(queue.family, [&](auto f) { f.ring(queue, position); });
  }
  void post(const Request& r) { ring(encode(r)); }

  /// The next completion, or none within ten seconds.
  bool wait(Completion& out) {
    bool found = false;
    for (int i = 0; i < 200000 && !found; ++i) {
      out = Completion{};
      with_family(queue.family, [&](auto f) { found = f.take(queue, out); });
      if (found) break;
      const timespec pause{0, 50'000};
      nanosleep(&pause, nullptr);
    }
    if (found && !out.failed) queue.completed = out.completed;
    return found;
  }
};
