// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Rings and counters of mori/blocks.hpp between the blocks of a launch, with their slots read and written by
// plain accesses. Launched again and again, as a graph replays.
#include "tests/device/kernels/blocks_flags.hpp"
#include "tests/sanitize/ranks.hpp"

using namespace mori;
using namespace mori::sanitize;

namespace {

void launch(Rank& rank, const char* kernel, uint32_t blocks, uint32_t warps, uint64_t count, uint64_t value,
            std::vector<uint64_t>& words, std::vector<uint64_t>& out) {
  FlagArgs args{};
  args.world = rank.world();
  args.out = reinterpret_cast<uint64_t>(out.data());
  args.words = reinterpret_cast<uint64_t>(words.data());
  args.count = count;
  args.value = value;
  rank.launch("blocks_flags", kernel, {.blocks = blocks, .warps = warps, .shared_bytes = 16}, args);
  rank.device().synchronize(0);
}

}  // namespace

int main(int argc, char** argv) {
  const Options o = options(argc, argv);
  const uint64_t lanes = uint64_t(o.lanes) * o.warps, depth = 2, rounds = 5;
  Ranks ranks(o, 4096);
  return ranks.run([&](Rank& rank) {
    std::vector<uint64_t> out(lanes * o.blocks + 3), counts(3 + lanes * o.blocks);
    for (const char* ring : {"ring_by_warp", "ring_by_block"}) {
      std::vector<uint64_t> words(2 + depth * lanes);
      launch(rank, ring, 2, o.warps, rounds, depth, words, out);
      if (words[0] != rounds || words[1] != rounds) rank.complain("a ring stopped early");
    }
    out.assign(out.size(), 0);
    for (uint64_t round = 1; round <= o.rounds; ++round) {
      launch(rank, "last_block_sums", o.blocks, o.warps, 0, 7, counts, out);
      if (out[0] != 7 * round * lanes * o.blocks || out[1] != round || out[2] != round) {
        rank.complain("the last block saw less than all");
      }
    }
  });
}
