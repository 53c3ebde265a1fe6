// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Runs the stress kernel over the toy NIC, or, with family=1 (mlx5), 2 (bnxt_re) or 3 (ionic), over the
// software NIC:
//   queue_main KERNEL_DIR name=number...
// prints what was wrong, or "ok" and the number of operations; exit status 1 when something was.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "src/core/runtime/cpu_device.hpp"
#include "src/transport/ibgda/softnic/softnic.hpp"
#include "tests/ibgda/queue_stress.hpp"
#include "tests/ibgda/toy_nic.hpp"

using namespace mori;

namespace {

/// Queues of a real family, and the software NIC behind them.
class Soft {
 public:
  Soft(const ibgda::QueueOptions& options, uint32_t queues, const ibgda::Faults& faults,
       const std::vector<uint64_t>& memory)
      : nic_([this](uint64_t bytes) {
          rings_.emplace_back(aligned_alloc(64, (bytes + 63) / 64 * 64), free);
          memset(rings_.back().get(), 0, bytes);
          return reinterpret_cast<uint64_t>(rings_.back().get());
        }),
        queues_(queues) {
    const uint64_t address = reinterpret_cast<uint64_t>(memory.data()), bytes = memory.size() * 8;
    keys = nic_.add_region(address, bytes);
    for (ibgda::Queue& queue : queues_) {
      nic_.create_queue(&queue, options);
      nic_.connect(&queue, {.address = address, .bytes = bytes, .rkey = keys.remote, .mapped = address});
    }
    nic_.set_faults(faults);
    nic_.start();
  }
  ibgda::Queue* queues() { return queues_.data(); }
  void stop() { nic_.stop(); }
  std::vector<std::string> violations() const { return nic_.violations(); }
  uint64_t executed() const { return nic_.executed(); }

  ibgda::RegionKeys keys;

 private:
  std::vector<std::unique_ptr<void, void (*)(void*)>> rings_;
  ibgda::SoftNic nic_;
  std::vector<ibgda::Queue> queues_;
};

}  // namespace

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
  std::vector<uint64_t> memory(2 * all + 2 * options.queues);
  uint64_t *slots = memory.data(), *results = slots + all, *counters = results + all,
           *constants = counters + options.queues;
  std::fill(results, counters, ~uint64_t(0));
  for (uint32_t i = 0; i < options.queues; ++i) constants[i] = i + 7;
  uint64_t early = 0, posted = 0;
  ErrorWord error{};
  const auto device = core::open_cpu(0, {argv[1], lanes, uint32_t(number("threads", 2))});
  const ibgda::Family family = ibgda::Family(number("family", 0));
  std::unique_ptr<ibgda::ToyNic> toy;
  std::unique_ptr<Soft> soft;
  if (family == ibgda::Family::none) {
    toy = std::make_unique<ibgda::ToyNic>(options);
  } else {
    const ibgda::QueueOptions made{.family = family,
                                   .depth = options.depth,
                                   .first_entry = options.first_position,
                                   .first_completion = number("first_completion", 0)};
    const uint32_t chance = uint32_t(number("faults", 0));  // of 1024
    ibgda::Faults faults{.seed = number("seed", 1),
                         .delay = chance,
                         .skip = 4 * chance,
                         .scatter = chance,
                         .late_doorbell = chance,
                         .lost = chance,
                         .again = chance,
                         .stale = chance,
                         .early = number("early", 1) != 0 ? chance : 0,
                         .retry = chance};
    if (fails) faults.fail_at = options.fail_at;
    if (fails) faults.fail_with = ibgda::Fault::remote_access;
    soft = std::make_unique<Soft>(made, options.queues, faults, memory);
  }
  const auto at = [](auto& thing) { return reinterpret_cast<uint64_t>(&thing); };
  const StressArgs args{.world = {.bases = 0,
                                  .error = at(error),
                                  .timeout_ticks = number("timeout_ms", 20000) * 1'000'000,
                                  .rank = 0,
                                  .world_size = 2,
                                  .fabric = 0},
                        .queues = reinterpret_cast<uint64_t>(soft ? soft->queues() : toy->queues()),
                        .slots = at(slots[0]),
                        .results = at(results[0]),
                        .counters = at(counters[0]),
                        .constants = at(constants[0]),
                        .early = at(early),
                        .posted = at(posted),
                        .num_queues = options.queues,
                        .operations = operations,
                        .broken = soft ? Broken::real : broken,
                        .together = uint32_t(number("together", 0)),
                        .seed = uint32_t(number("seed", 1)),
                        .lkey = soft ? soft->keys.local : 0,
                        .rkey = soft ? soft->keys.remote : 0};
  device->launch(device->function("queue_stress", "queue_stress", sizeof args),
                 {.blocks = blocks, .warps = warps}, 0, &args);
  if (soft) soft->stop();
  if (toy) toy->stop();
  const uint64_t executed = soft ? soft->executed() : toy->executed();

  int wrong = 0;
  const auto complain = [&](const std::string& what) {
    ++wrong;
    printf("%s\n", what.c_str());
  };
  for (const std::string& sentence : soft ? soft->violations() : toy->violations()) complain(sentence);
  if (error.state != 0)
    complain("error word: wait " + std::to_string(error.wait) + " peer " + std::to_string(error.peer) +
             " expected " + std::to_string(error.expected) + " seen " + std::to_string(error.seen));
  if (early != 0) complain(std::to_string(early) + " operations were not done when they should have been");
  if (!fails && !soft && executed != posted)
    complain(std::to_string(posted) + " posted, " + std::to_string(executed) + " executed");
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
