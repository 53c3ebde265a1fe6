// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// shmem_families.kernel.cpp on ranks as threads, by a warp and by a block.
#include <string>
#include <vector>

#include "tests/sanitize/ranks.hpp"
#include "tests/sanitize/shmem_families.hpp"

using namespace mori;
using namespace mori::sanitize;

int main(int argc, char** argv) {
  const Options o = options(argc, argv);
  constexpr uint64_t kWords = 37;  // more than a workspace holds: several pieces
  // offsets in the heap, whose size is exact
  const uint64_t flags = 4 * kWords + 4, counts = flags + 8, sums = counts + 16, gathered = sums + 4 * kWords;
  const uint64_t signals = (gathered + 4 * kWords * o.ranks + 15) / 16 * 16;
  const uint64_t workspace = (signals + 8 * o.ranks + 15) / 16 * 16, workspace_bytes = 32 * o.ranks;
  Ranks ranks(o, workspace + workspace_bytes);
  return ranks.run([&](Rank& rank) {
    std::vector<uint32_t> own(kWords);
    std::vector<uint64_t> indices(3), out(2);
    const uint64_t heap = reinterpret_cast<uint64_t>(rank.heap());
    ShmemFamiliesArgs args{.world = rank.world(),
                           .team = {signals, workspace, workspace_bytes, 0, 1, o.ranks, rank.index()},
                           .data = heap,
                           .flags = heap + flags,
                           .counts = heap + counts,
                           .sums = heap + sums,
                           .gathered = heap + gathered,
                           .own = reinterpret_cast<uint64_t>(own.data()),
                           .indices = reinterpret_cast<uint64_t>(indices.data()),
                           .out = reinterpret_cast<uint64_t>(out.data()),
                           .words = kWords,
                           .first = 1,
                           .rounds = o.rounds,
                           .by_block = 0};
    for (args.by_block = 0; args.by_block < 2; ++args.by_block) {
      out = {0, 0};
      rank.launch("shmem_families", "shmem_families", {o.blocks, o.warps, 16}, args);
      if (out[0] != 0 || out[1] != o.rounds)
        rank.complain(std::to_string(out[0]) + " wrong after " + std::to_string(out[1]) + " rounds");
      args.first += o.rounds;
      rank.barrier();
    }
  });
}
