// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The software NIC by itself, posted to from one thread by the families' own encoders.
//   softnic_main checks|faults|fuzz FAMILY NUMBER
// checks: each mistake in an entry, a register or a request is found and named; NUMBER is not used.
// faults: all faults at once, from counters near every wrap: NUMBER requests, each done once, in order.
// fuzz: NUMBER random rings, records and registers; the NIC neither crashes nor hangs.
// Prints what was wrong; exit status 1 when something was.
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

namespace {

int mistakes = 0;
void complain(const std::string& what) {
  ++mistakes;
  printf("%s\n", what.c_str());
}

uint64_t random_state = 88172645463325252ull;
uint64_t next_random() {
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
  uint32_t lkey, rkey;
  Queue queue{};
  uint64_t position;

  Bench(Family family, const QueueOptions& given = {}, const Faults& faults = {})
      : nic([this](uint64_t bytes) { return arena(bytes); }) {
    QueueOptions options = given;
    options.family = family;
    lkey = nic.add_region(address(here), sizeof here);
    rkey = 0x77;
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

  /// The next completion, or none within a second.
  bool wait(Completion& out) {
    bool found = false;
    for (int i = 0; i < 20000 && !found; ++i) {
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

struct Mistake {
  const char* name;
  const char* sentence;  ///< part of what violations() says; empty: none, the request's fault only
  Fault fault;
  void (*make)(Bench&);
};

/// Posts a write of 8 bytes after changing its entry.
void post_changed(Bench& b, uint32_t offset, unsigned char bits, uint32_t length = 8,
                  uint32_t flags = kSignaled) {
  Request r = b.write(length);
  r.flags = flags;
  const uint32_t units = b.encode(r);
  uint64_t unit = 0;
  with_family(b.queue.family, [&](auto f) { unit = f.kUnit; });
  reinterpret_cast<unsigned char*>(b.queue.sq + b.position % b.queue.depth * unit)[offset] ^= bits;
  b.ring(units);
}
template <uint32_t kOffset, unsigned char kBits>
void changed(Bench& b) {
  post_changed(b, kOffset, kBits);
}
template <class Change>
void post_with(Bench& b, Change change) {
  Request r = b.write(8);
  change(r);
  b.post(r);
}

constexpr Mistake kOfAll[] = {
    {"a local key of nobody", "", Fault::local_protection,
     [](Bench& b) { post_with(b, [](Request& r) { r.lkey ^= 1; }); }},
    {"local bytes behind the region", "", Fault::local_protection,
     [](Bench& b) { post_with(b, [](Request& r) { r.local += 4089; }); }},
    {"local bytes before the region", "", Fault::local_protection,
     [](Bench& b) { post_with(b, [](Request& r) { r.local -= 1; }); }},
    {"a local length of everything", "", Fault::local_protection,
     [](Bench& b) { post_with(b, [](Request& r) { r.length = 0x7fffffff; }); }},
    {"a remote key of nobody", "", Fault::remote_access,
     [](Bench& b) { post_with(b, [](Request& r) { r.rkey ^= 1; }); }},
    {"remote bytes behind the window", "", Fault::remote_access,
     [](Bench& b) { post_with(b, [](Request& r) { r.remote += 4089; }); }},
    {"remote bytes before the window", "", Fault::remote_access,
     [](Bench& b) { post_with(b, [](Request& r) { r.remote -= 1; }); }},
    {"a remote address at the end of the world", "", Fault::remote_access,
     [](Bench& b) { post_with(b, [](Request& r) { r.remote = ~uint64_t(0) - 3; }); }},
    {"inline data in an atomic", "", Fault::bad_entry,
     [](Bench& b) {
       post_with(b, [](Request& r) {
         r.op = Op::fetch_add;
         r.flags |= kInline;
       });
     }},
    {"an atomic off its alignment", "", Fault::remote_invalid,
     [](Bench& b) {
       post_with(b, [](Request& r) {
         r.op = Op::fetch_add;
         r.remote += 4;
       });
     }},
    {"a doorbell beyond the ring or half of an entry", "", Fault::bad_entry,
     [](Bench& b) {
       b.encode(b.write(8));
       if (b.queue.family == Family::mlx5) {
         b.ring(0x4000);
       } else if (b.queue.family == Family::bnxt_re) {
         b.ring(1);
       } else {
         __atomic_store_n(reinterpret_cast<uint64_t*>(b.queue.doorbell),
                          uint64_t(b.queue.qpn) << 24 | (b.queue.depth + 3), __ATOMIC_RELEASE);
       }
     }},
};
constexpr Mistake kOfMlx5[] = {
    {"index", "the index", Fault::bad_entry, changed<2, 1>},
    {"queue number", "queue", Fault::bad_entry, changed<6, 1>},
    {"length in segments", "the length in segments", Fault::bad_entry, changed<7, 4>},
    {"signature", "reserved bits", Fault::bad_entry, changed<8, 1>},
    {"reserved flag", "reserved bits", Fault::bad_entry, changed<11, 0x10>},
    {"opcode", "opcode", Fault::bad_entry, changed<3, 0x80>},
    {"opcode modifier", "opcode modifier", Fault::bad_entry, changed<0, 8>},
    {"stale bytes", "behind the last segment", Fault::bad_entry, changed<63, 1>},
    {"stale inline bytes", "behind the last segment", Fault::bad_entry,
     [](Bench& b) { post_changed(b, 50, 1, 8, kSignaled | kInline); }},
    {"register of another queue", "another queue", Fault::bad_entry,
     [](Bench& b) {
       const uint32_t units = b.encode(b.write(8));
       const uint64_t other = uint64_t(__builtin_bswap32((b.queue.qpn + 1) << 8 | 3)) << 32;
       *reinterpret_cast<uint64_t*>(b.queue.doorbell) = other;
       b.position += units;
       b.queue.published = b.position;
       __atomic_store_n(reinterpret_cast<uint32_t*>(b.queue.record) + 1,
                        __builtin_bswap32(uint32_t(b.position)), __ATOMIC_RELEASE);
     }},
};
constexpr Mistake kOfBnxtRe[] = {
    {"size in slots", "the size in slots", Fault::bad_entry, changed<2, 1>},
    {"reserved flag", "reserved flags", Fault::bad_entry, changed<1, 0x20>},
    {"type", "none that this NIC executes", Fault::bad_entry, changed<0, 0x40>},
    {"reserved word", "reserved words", Fault::bad_entry, changed<28, 1>},
    {"length of the segment", "the segment's length", Fault::bad_entry, changed<44, 1>},
    {"stale inline bytes", "behind the last segment", Fault::bad_entry,
     [](Bench& b) { post_changed(b, 47, 1, 8, kSignaled | kInline); }},
    {"PSN of the MSN table", "MSN table", Fault::bad_entry,
     [](Bench& b) {
       const uint32_t units = b.encode(b.write(8));
       reinterpret_cast<uint64_t*>(b.queue.msn)[1] ^= 1;
       b.ring(units);
     }},
    {"packets of the MSN table", "MSN table", Fault::bad_entry,
     [](Bench& b) {
       Request r = b.write(4000);
       const uint32_t units = b.encode(r);
       b.queue.packets = b.queue.messages = 1;
       b.queue.mtu = 256;  // another than the NIC's
       BnxtRe::publish(b.queue, b.position, r);
       b.ring(units);
     }},
    {"register of another queue", "another queue", Fault::bad_entry,
     [](Bench& b) {
       const uint32_t units = b.encode(b.write(8));
       b.queue.qpn += 1;
       b.ring(units);
     }},
};
constexpr Mistake kOfIonic[] = {
    {"index", "the index", Fault::bad_entry, changed<0, 1>},
    {"color", "the color", Fault::bad_entry, changed<11, 0x10>},
    {"reserved flag", "reserved flags", Fault::bad_entry, changed<10, 0x40>},
    {"number of segments", "the number of segments", Fault::bad_entry, changed<9, 3>},
    {"operation", "none that this NIC executes", Fault::bad_entry, changed<8, 0x80>},
    {"length of the segment", "the segment's length", Fault::bad_entry, changed<43, 1>},
    {"stale bytes", "behind the last segment", Fault::bad_entry, changed<60, 1>},
    {"stale inline bytes", "behind the last segment", Fault::bad_entry,
     [](Bench& b) { post_changed(b, 63, 1, 8, kSignaled | kInline); }},
    {"register of another queue", "another queue", Fault::bad_entry,
     [](Bench& b) {
       const uint32_t units = b.encode(b.write(8));
       b.queue.qpn += 1;
       b.ring(units);
     }},
};

/// The mistake behind a good request and before another one: the first is done, the second fails, the third
/// is flushed.
void check(Family family, const Mistake& mistake) {
  Bench b(family);
  std::memset(b.here, 0x5a, sizeof b.here);
  Request good = b.write(64);
  good.remote += 1024;
  b.nic.start();
  b.post(good);
  const std::string who = std::string(mistake.name) + ": ";
  Completion first, second;
  if (!b.wait(first) || first.failed) complain(who + "the request before it was not done");
  mistake.make(b);
  if (!b.wait(second)) return complain(who + "no completion");
  if (!second.failed || second.status != status_of(family, mistake.fault))
    complain(who + "status " + std::to_string(second.status));
  b.nic.stop();
  if (b.there[1024] != 0x5a || b.there[0] != 0) complain(who + "memory is not as it should be");
  const std::vector<std::string> said = b.nic.violations();
  const bool poster = mistake.fault == Fault::bad_entry;
  if (said.size() != (poster ? 1u : 0u)) complain(who + std::to_string(said.size()) + " violations");
  if (poster && !said.empty() && said[0].find(mistake.sentence) == std::string::npos) complain(who + said[0]);
}

void checks(Family family) {
  for (const Mistake& m : kOfAll) check(family, m);
  if (family == Family::mlx5)
    for (const Mistake& m : kOfMlx5) check(family, m);
  if (family == Family::bnxt_re)
    for (const Mistake& m : kOfBnxtRe) check(family, m);
  if (family == Family::ionic)
    for (const Mistake& m : kOfIonic) check(family, m);
  // Each way to fail, on purpose: its status, then flushed entries, then silence.
  for (uint32_t f = 1; f < 11; ++f) {
    Faults faults;
    faults.fail_at = 2;
    faults.fail_with = Fault(f);
    Bench b(family, {}, faults);
    for (int i = 0; i < 5; ++i) b.post(b.write(8));
    b.nic.start();
    for (int i = 0; i < 5; ++i) {
      Completion c;
      const uint32_t wanted = i < 2 ? 0 : status_of(family, i == 2 ? Fault(f) : Fault::flushed);
      if (!b.wait(c) || c.failed != (wanted != 0) || (c.failed && c.status != wanted))
        complain("fault " + std::to_string(f) + ": completion " + std::to_string(i) + " has status " +
                 std::to_string(c.status));
    }
    b.nic.stop();
    if (!b.nic.violations().empty()) complain(b.nic.violations()[0]);
  }
}

/// One poster, a window of outstanding requests, all faults: each done once, in order.
void faults(Family family, uint64_t count) {
  static constexpr uint64_t kStarts[] = {0, (1 << 16) - 20, (1 << 24) - 20, (1ull << 32) - 20,
                                         (1ull << 48) + 3};
  for (const uint64_t start : kStarts) {
    Faults chances;
    chances.seed = start + 5;
    chances.delay = 2;
    chances.delay_us = 5;
    chances.skip = chances.late_doorbell = chances.again = chances.retry = 100;
    chances.early = chances.scatter = 300;
    QueueOptions options;
    options.depth = 16;
    options.first_entry = options.first_completion = start;
    options.mtu = 256;
    Bench b(family, options, chances);
    b.nic.start();
    uint64_t done = 0, fetched = 0, sum = 0;
    const uint32_t unit = family == Family::bnxt_re ? 3 : 1;
    const std::string who = "start " + std::to_string(start) + ": ";
    for (uint64_t i = 0; i < count;) {
      const uint64_t base = b.position;
      const uint64_t group = 1 + next_random() % 5;
      uint64_t added = 0;
      for (uint64_t k = 0; k < group; ++k) {
        Request r = b.write(8 + uint32_t(next_random() % 1000));
        if (k + 1 == group) {  // behind the writes: an addition, whose old value says what came before
          r.op = Op::fetch_add;
          r.length = 8;
          r.remote += 4088;
          r.local = Bench::address(b.here + 4088);
          r.value = added = next_random();
        } else {
          b.here[k * 1024] = static_cast<unsigned char>(i + k);
          r.local += k * 1024;
          r.remote += k * 1024;
          if (k == 3) r.length = 1000 > r.length ? r.length : 1000;
        }
        b.post(r);
      }
      i += group;
      while (done < i) {
        Completion c;
        if (!b.wait(c)) return complain(who + "request " + std::to_string(done) + " was not done");
        if (c.failed) return complain(who + "status " + std::to_string(c.status));
        done = (c.completed - b.queue.first_position) / unit;
      }
      std::memcpy(&fetched, b.here + 4088, 8);
      if (fetched != sum) return complain(who + "an addition was lost, or done twice");
      sum += added;
      for (uint64_t k = 0; k + 1 < group; ++k)
        if (b.there[k * 1024] != b.here[k * 1024])
          return complain(who + "a write was not done when it was complete");
      if (b.position != base + group * unit) complain(who + "positions");
    }
    b.nic.stop();
    if (b.nic.executed() != done) complain(who + std::to_string(b.nic.executed()) + " executed");
    for (const std::string& sentence : b.nic.violations()) complain(who + sentence);
  }
}

void fuzz(Family family, uint64_t count) {
  uint64_t refused = 0;
  for (uint64_t i = 0; i < count; ++i) {
    QueueOptions options;
    options.depth = 8;
    Bench b(family, options);
    // an entry that is right but for some random bytes, or all random
    Request r = b.write(uint32_t(next_random() % 64));
    r.op = Op(next_random() % 8);
    if ((next_random() & 3) == 0) r.flags |= kInline;
    if (r.op >= Op::fetch_add) r.length = (next_random() & 1) != 0 ? 8 : 4;
    if (r.length > b.queue.max_inline || r.op > Op::write) r.flags &= ~uint32_t(kInline);
    const uint32_t units = b.encode(r);
    auto* ring = reinterpret_cast<unsigned char*>(b.queue.sq);
    const uint64_t changes = (next_random() & 1) != 0 ? next_random() % 4 : 300;
    for (uint64_t k = 0; k < changes; ++k)
      ring[next_random() % 64] = static_cast<unsigned char>(next_random());
    b.ring(units);
    auto* registers = reinterpret_cast<uint64_t*>(b.queue.doorbell);
    if (next_random() % 4 == 0) *registers = next_random();
    if (next_random() % 4 == 0 && b.queue.record != 0)
      reinterpret_cast<uint32_t*>(b.queue.record)[1] = uint32_t(next_random());
    if (next_random() % 4 == 0 && b.queue.msn != 0) *reinterpret_cast<uint64_t*>(b.queue.msn) = next_random();
    b.nic.step();
    b.nic.step();
    refused += b.nic.violations().empty() ? 0 : 1;
  }
  if (refused < count / 10) complain("only " + std::to_string(refused) + " refused");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  const std::string what = argv[1], name = argv[2];
  const Family family = name == "mlx5" ? Family::mlx5 : name == "bnxt_re" ? Family::bnxt_re : Family::ionic;
  const uint64_t number = strtoull(argv[3], nullptr, 0);
  if (what == "checks") checks(family);
  if (what == "faults") faults(family, number);
  if (what == "fuzz") fuzz(family, number);
  printf("%s\n", mistakes == 0 ? "ok" : "WRONG");
  return mistakes == 0 ? 0 : 1;
}
