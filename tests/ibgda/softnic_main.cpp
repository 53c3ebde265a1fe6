// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The software NIC by itself, posted to from one thread by the families' own encoders.
//   softnic_main checks|faults|fuzz|stages FAMILY NUMBER
// checks: each mistake in an entry, a register or a request is found and named; NUMBER is not used.
// faults: all faults at once, from counters near every wrap: NUMBER requests, each done once, in order.
// fuzz: NUMBER random rings, records and registers; the NIC neither crashes nor hangs.
// stages: what each stage of NUMBER puts costs, on stderr; NUMBER is a multiple of 128.
// Prints what was wrong; exit status 1 when something was.
#include <algorithm>

#include "tests/ibgda/softnic_mistakes.hpp"
#include "tests/ibgda/softnic_removal.hpp"
#include "tests/ibgda/softnic_stages.hpp"

namespace {

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
  Completion first, second, third;
  if (!b.wait(first) || first.failed) complain(who + "the request before it was not done");
  mistake.make(b);
  if (!b.wait(second)) return complain(who + "no completion");
  if (!second.failed || second.status != status_of(family, mistake.fault))
    complain(who + "status " + std::to_string(second.status));
  b.post(b.write(8));
  if (!b.wait(third) || !third.failed || third.status != status_of(family, Fault::flushed))
    complain(who + "the request behind it has status " + std::to_string(third.status));
  b.nic.stop();
  if (b.there[1024] != 0x5a || b.there[0] != 0) complain(who + "memory is not as it should be");
  const std::vector<std::string> said = b.nic.violations();
  const bool poster = mistake.fault == Fault::bad_entry;
  if (poster != (mistake.sentence[0] != 0)) complain(who + "the table does not say what the NIC says");
  if (said.size() != (poster ? 1u : 0u)) complain(who + std::to_string(said.size()) + " violations");
  if (!poster || said.empty()) return;
  const std::string sentence = said[0].substr(said[0].find(": ") + 2);
  if (sentence.compare(0, std::strlen(mistake.sentence), mistake.sentence) != 0) complain(who + said[0]);
}

/// Each way to fail, on purpose: its status, then flushed entries, also those that are rung later.
void check_failing(Family family) {
  for (uint32_t f = 1; f < 11; ++f) {
    Faults faults;
    faults.fail_at = 2;
    faults.fail_with = Fault(f);
    Bench b(family, {}, faults);
    for (int i = 0; i < 4; ++i) b.post(b.write(8));
    b.nic.start();
    for (int i = 0; i < 6; ++i) {
      if (i >= 4) b.post(b.write(8));
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

/// What no entry shows: completions that nobody takes, registers that are not rung, stop and start.
void check_life(Family family) {
  {
    Bench b(family, {.depth = 8});
    for (uint32_t i = 0; i < 2 * b.queue.cq_depth && b.nic.violations().empty(); ++i) {
      b.post(b.write(8));
      b.nic.step();
    }
    const std::vector<std::string> said = b.nic.violations();
    if (said.empty() || said[0].find(": the completion ring is full") == std::string::npos)
      complain("completions overran their ring");
  }
  Bench b(family);
  if (b.queue.qpn == b.queue.cqn) complain("the numbers of a queue and its completion queue are one");
  Completion c;
  for (int i = 0; i < 3; ++i) {
    b.nic.start();
    for (int k = 0; k < 2; ++k) {
      b.post(b.write(8));
      if (!b.wait(c) || c.failed) complain("a NIC that was stopped and started does nothing");
    }
    b.nic.stop();
    b.nic.stop();
  }
  if (!b.nic.violations().empty()) complain(b.nic.violations()[0]);
  if (family != Family::mlx5) return;
  b.nic.start();
  const uint64_t done = b.nic.executed(), real = b.queue.doorbell;
  uint64_t elsewhere = 0;
  b.queue.doorbell = Bench::address(&elsewhere);
  b.post(b.write(8));
  b.queue.doorbell = real;
  b.nic.stop();
  const std::vector<std::string> said = b.nic.violations();
  if (b.nic.executed() != done) complain("an entry was executed for which no register was rung");
  if (said.size() != 1 || said[0].find("no register was rung") == std::string::npos)
    complain("a register that was not rung went unnoticed");
}

void checks(Family family) {
  for (const Mistake& m : kOfAll) check(family, m);
  if (family == Family::mlx5)
    for (const Mistake& m : kOfMlx5) check(family, m);
  if (family == Family::bnxt_re)
    for (const Mistake& m : kOfBnxtRe) check(family, m);
  if (family == Family::ionic)
    for (const Mistake& m : kOfIonic) check(family, m);
  check_failing(family);
  check_life(family);
  removal::check(family);
}

/// One poster, a window of outstanding requests, all faults: each done once, in order.
void faults(Family family, uint64_t count) {
  static constexpr uint64_t kStarts[] = {0, (1 << 16) - 20, (1 << 24) - 20, (1ull << 32) - 20,
                                         (1ull << 48) + 3};
  for (const uint64_t start : kStarts) {
    Faults chances;
    chances.seed = start + 5;
    chances.delay = 20;
    chances.delay_us = 5;
    chances.skip = chances.late_doorbell = chances.again = chances.retry = chances.stale = 100;
    chances.lost = 30;
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
        if (c.failed) {
          for (const std::string& sentence : b.nic.violations()) complain(who + sentence);
          return complain(who + "status " + std::to_string(c.status));
        }
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
    for (uint32_t Faults::* fault :
         {&Faults::delay, &Faults::skip, &Faults::scatter, &Faults::late_doorbell, &Faults::lost,
          &Faults::again, &Faults::stale, &Faults::early, &Faults::retry})
      if (b.nic.happened().*fault == 0) complain(who + "a fault never came true");
  }
}

void fuzz(Family family, uint64_t count) {
  static constexpr uint64_t kStarts[] = {0, 5, 8, 13, (1 << 16) - 3, (1 << 24) - 3, (1ull << 32) - 1};
  uint64_t refused = 0, done = 0;
  for (uint64_t i = 0; i < count; ++i) {
    QueueOptions options;
    options.depth = 8;
    options.first_entry = kStarts[next_random() % 7] + next_random() % 17;
    options.first_completion = options.first_entry;
    Bench b(family, options);
    uint64_t unit = 0;
    with_family(family, [&](auto f) { unit = f.kUnit; });
    const uint64_t before = next_random() % 4;  // good ones, so that the bad one is anywhere
    for (uint64_t k = 0; k < before; ++k) b.post(b.write(8));
    // an entry that is right but for some random bytes, or all random
    Request r = b.write(uint32_t(next_random() % 64));
    r.op = Op(next_random() % 8);
    if ((next_random() & 3) == 0) r.flags |= kInline;
    if (r.op >= Op::fetch_add) r.length = (next_random() & 1) != 0 ? 8 : 4;
    if (r.length > b.queue.max_inline || r.op > Op::write) r.flags &= ~uint32_t(kInline);
    const uint64_t entry = b.queue.sq + b.position % b.queue.depth * unit;
    const uint32_t units = b.encode(r);
    const uint64_t changes = (next_random() & 1) != 0 ? next_random() % 4 : 300;
    const uint64_t bytes = b.queue.sq + b.queue.depth * unit - entry;
    for (uint64_t k = 0; k < changes; ++k)
      word<unsigned char>(entry + next_random() % std::min<uint64_t>(bytes, 64)) =
          static_cast<unsigned char>(next_random());
    b.ring(units);
    const uint64_t words[] = {b.queue.doorbell, b.queue.record, b.queue.cq_doorbell, b.queue.msn};
    for (const uint64_t address : words)
      if (next_random() % 8 == 0 && address != 0) word<uint64_t>(address) = next_random();
    for (int k = 0; k < 3; ++k) b.nic.step();
    if (next_random() % 2 == 0) b.post(b.write(8));  // behind whatever it was
    b.nic.step();
    refused += b.nic.violations().empty() ? 0 : 1;
    done += b.nic.executed() > before ? 1 : 0;
  }
  if (refused < count / 10) complain("only " + std::to_string(refused) + " refused");
  if (done < count / 50) complain("only " + std::to_string(done) + " executed");
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
  if (what == "stages") stages(family, number);
  if (what == "stages") rate(family, number);
  printf("%s\n", mistakes == 0 ? "ok" : "WRONG");
  return mistakes == 0 ? 0 : 1;
}
