// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Runs the stress kernel over the toy NIC:
//   queue_main KERNEL_DIR name=number...
// prints what was wrong, or "ok" and the number of operations; exit status 1 when something was.
#include <cstdio>
#include <cstdlib>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "src/core/runtime/cpu_device.hpp"
#include "tests/ibgda/queue_stress.hpp"
#include "tests/ibgda/toy_nic.hpp"

using namespace mori;

int main(int argc, char** argv) {
  std::map<std::string, uint64_t> given;
  for (int i = 2; i < argc; ++i) {
    const std::string word = argv[i];
    const size_t sign = word.find('=');
    given[word.substr(0, sign)] = strtoull(word.c_str() + sign + 1, nullptr, 0);
  }
  const auto number = [&](const char* name, uint64_t otherwise) {
    return given.count(name) != 0 ? given[name] : otherwise;
  };
  const uint32_t lanes = uint32_t(number("lanes", 1)), blocks = uint32_t(number("blocks", 4)),
                 warps = uint32_t(number("warps", 1)), operations = uint32_t(number("operations", 100));
  ibgda::ToyNic::Options options;
  options.queues = uint32_t(number("queues", 2));
  options.depth = uint32_t(number("depth", 64));
  options.cq_depth = uint32_t(number("cq_depth", 64));
  options.first_position = number("first", 0);
  options.late = uint32_t(number("late", 0));
  options.slow = uint32_t(number("slow", 0));
  const Broken broken = Broken(number("broken", 0));
  options.messages = broken != Broken::plain && broken != Broken::join;
  options.fail_at = number("fail_at", ~uint64_t(0));
  const bool fails = options.fail_at != ~uint64_t(0);
  const uint64_t all = uint64_t(lanes) * blocks * warps * operations;
  std::vector<uint64_t> slots(all), results(all, ~uint64_t(0)), counters(options.queues), constants;
  for (uint32_t i = 0; i < options.queues; ++i) constants.push_back(i + 7);
  uint64_t early = 0, posted = 0;
  ErrorWord error{};
  const auto device = core::open_cpu(0, {argv[1], lanes, uint32_t(number("threads", 2))});
  ibgda::ToyNic nic(options);
  const auto at = [](auto& thing) { return reinterpret_cast<uint64_t>(&thing); };
  const StressArgs args{.world = {.bases = 0,
                                  .error = at(error),
                                  .timeout_ticks = number("timeout_ms", 20000) * 1'000'000,
                                  .rank = 0,
                                  .world_size = 2,
                                  .fabric = 0},
                        .queues = reinterpret_cast<uint64_t>(nic.queues()),
                        .slots = at(slots[0]),
                        .results = at(results[0]),
                        .counters = at(counters[0]),
                        .constants = at(constants[0]),
                        .early = at(early),
                        .posted = at(posted),
                        .num_queues = options.queues,
                        .operations = operations,
                        .broken = broken,
                        .together = uint32_t(number("together", 0)),
                        .seed = uint32_t(number("seed", 1)),
                        .unused = 0};
  device->launch(device->function("queue_stress", "queue_stress", sizeof args),
                 {.blocks = blocks, .warps = warps}, 0, &args);
  nic.stop();

  int wrong = 0;
  const auto complain = [&](const std::string& what) {
    ++wrong;
    printf("%s\n", what.c_str());
  };
  for (const std::string& sentence : nic.violations()) complain(sentence);
  if (error.state != 0)
    complain("error word: wait " + std::to_string(error.wait) + " peer " + std::to_string(error.peer) +
             " expected " + std::to_string(error.expected) + " seen " + std::to_string(error.seen));
  if (early != 0) complain(std::to_string(early) + " operations were not done when they should have been");
  if (!fails && nic.executed() != posted)
    complain(std::to_string(posted) + " posted, " + std::to_string(nic.executed()) + " executed");
  std::vector<std::set<uint64_t>> fetched(options.queues);
  for (uint64_t i = 0; i < all && wrong == 0; ++i) {
    const Step s = step(args.seed, i, options.queues, args.together);
    if (s.posts && s.kind == 1 && !fetched[s.queue].insert(results[i]).second)
      complain("two additions fetched " + std::to_string(results[i]));
  }
  for (uint32_t q = 0; q < options.queues && wrong == 0; ++q) {
    if (fetched[q].size() != counters[q])
      complain(std::to_string(fetched[q].size()) + " additions made a sum of " + std::to_string(counters[q]));
  }
  if (wrong == 0) printf("ok %llu\n", static_cast<unsigned long long>(posted));
  return wrong != 0;
}
