// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// SHMEM on ranks as threads: what a signal or a barrier publishes is written and read with plain accesses, so
// a sanitizer sees every ordering that put_signal, signal_wait_until and barrier fail to give.
#include <string>
#include <vector>

#include "src/shmem/shmem_selftest.hpp"
#include "tests/sanitize/ranks.hpp"

using namespace mori;
using namespace mori::sanitize;

namespace {

constexpr uint32_t kMaxGroups = 4, kBytes = 150, kStride = 168;  // 150: edges on both sides
constexpr size_t kSignalsAt = kMaxGroups * kStride, kWordsAt = kSignalsAt + 2 * kMaxGroups * 8;

void check(Rank& rank, const char* test, const std::vector<uint64_t>& out, uint32_t groups, uint32_t rounds) {
  for (uint32_t g = 0; g < groups; ++g) {
    if (out[2 * g] == 0 && out[2 * g + 1] == rounds) continue;
    rank.complain(std::string(test) + ": group " + std::to_string(g) + " has " + std::to_string(out[2 * g]) +
                  " wrong after " + std::to_string(out[2 * g + 1]) + " rounds");
  }
}

}  // namespace

int main(int argc, char** argv) {
  const Options o = options(argc, argv);
  const size_t barrier_at = kWordsAt + 2ull * o.ranks * 8;
  Ranks ranks(o, barrier_at + 3ull * o.ranks * 8);
  return ranks.run([&](Rank& rank) {
    std::vector<uint8_t> outbox(kMaxGroups * kStride);
    const uint64_t heap = reinterpret_cast<uint64_t>(rank.heap());
    const core::LaunchShape shape{o.blocks, o.warps, 16};
    const SelfTestGroup scopes[] = {SelfTestGroup::thread, SelfTestGroup::warp, SelfTestGroup::block};
    for (const SelfTestGroup by : scopes) {
      const uint32_t counts[] = {2, o.blocks * o.warps, o.blocks};
      const uint32_t groups = counts[uint32_t(by)];
      std::vector<uint64_t> out(2 * kMaxGroups);
      ShmemSelfTestArgs args{.world = rank.world(),
                             .to = heap,
                             .from = reinterpret_cast<uint64_t>(outbox.data()),
                             .signals = heap + kSignalsAt,
                             .out = reinterpret_cast<uint64_t>(out.data()),
                             .bytes = kBytes,
                             .stride = kStride,
                             .rounds = o.rounds,
                             .by = by,
                             .groups = groups,
                             .distance = 1,
                             .pes = 1};
      rank.launch("shmem_selftest", "shmem_selftest_exchange", shape, args);
      check(rank, "exchange", out, groups, o.rounds);
      rank.barrier();
      for (size_t i = kSignalsAt; i < kWordsAt; ++i) rank.heap()[i] = 0;
      rank.barrier();

      out.assign(out.size(), 0);
      args.to = heap + kWordsAt;
      args.signals = heap + barrier_at + 8ull * o.ranks * uint32_t(by);
      args.groups = 1;
      rank.launch("shmem_selftest", "shmem_selftest_barrier", shape, args);
      check(rank, "barrier", out, 1, o.rounds);
      rank.barrier();
    }
  });
}
