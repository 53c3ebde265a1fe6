// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Collectives on ranks as threads, one after the other with nothing between: what a meeting publishes, and
// what makes a buffer free again, is written and read with plain accesses, so a sanitizer sees every ordering
// that is missing. Operands are in memory of a rank's own, in its heap, where peers read them in place, or so
// on every other rank.
#include <string>
#include <vector>

#include "src/ops/ccl/ccl_args.hpp"
#include "tests/sanitize/ranks.hpp"

using namespace mori;
using namespace mori::sanitize;

namespace {

constexpr uint32_t kCount = 150;  // elements of a message: several steps of every block

struct Call {
  CclOp op;
  CclAlgorithm algorithm;
  const char* name;
};
constexpr Call kCalls[] = {
    {CclOp::all_reduce, CclAlgorithm::one_shot, "one_shot"},
    {CclOp::all_reduce, CclAlgorithm::two_shot, "two_shot"},
    {CclOp::all_reduce, CclAlgorithm::ll, "ll"},
    {CclOp::reduce_scatter, CclAlgorithm::one_shot, "reduce_scatter"},
    {CclOp::all_gather, CclAlgorithm::one_shot, "all_gather"},
    {CclOp::all_to_all, CclAlgorithm::one_shot, "all_to_all"},
};

}  // namespace

int main(int argc, char** argv) {
  const Options o = options(argc, argv);
  const uint64_t n = o.ranks, chunk = 64 * n, words = 16;
  uint64_t at = 0;
  const auto place = [&](uint64_t bytes) {
    const uint64_t begin = at;
    at += (bytes + 15) / 16 * 16;
    return begin;
  };
  CclArgs common{};
  common.signals = place(o.blocks * n * 8);
  common.told = place(o.blocks * 2 * 3 * n * 8);
  common.counters = place(o.blocks * 2 * 8);
  common.staging = place(o.blocks * 3 * chunk);
  common.packets = place(o.blocks * 2 * n * words * 8);
  const uint64_t operand_bytes = kCount * n * sizeof(int32_t);
  const uint64_t source_place = place(operand_bytes), dest_place = place(operand_bytes);
  common.chunk_bytes = chunk;
  common.packet_words = words;
  common.members = o.ranks;
  for (uint32_t r = 0; r < o.ranks; ++r) common.ranks[r] = uint8_t(r);
  Ranks ranks(o, at);
  return ranks.run([&](Rank& rank) {
    const core::LaunchShape shape{o.blocks, o.warps, 16};
    std::vector<int32_t> own_source(kCount * n), own_dest(kCount * n);
    int32_t* heap_source = reinterpret_cast<int32_t*>(rank.heap() + source_place);
    int32_t* heap_dest = reinterpret_cast<int32_t*>(rank.heap() + dest_place);
    for (uint32_t round = 0; round < 2 * o.rounds; ++round) {
      for (const Call& call : kCalls) {
        const uint32_t where = (round + (&call - kCalls)) % 3;  // own memory, heap, heap of odd ranks
        const bool in_place =
            call.algorithm != CclAlgorithm::ll && (where == 1 || (where == 2 && rank.index() % 2 == 1));
        int32_t* source = in_place ? heap_source : own_source.data();
        int32_t* dest = in_place ? heap_dest : own_dest.data();
        const auto sent = [&](uint64_t r, uint64_t i) { return int32_t(1000 * r + i + round); };
        for (uint64_t i = 0; i < kCount * n; ++i) source[i] = sent(rank.index(), i);
        CclArgs args = common;
        args.world = rank.world();
        args.index = rank.index();
        args.source = reinterpret_cast<uint64_t>(source);
        args.dest = reinterpret_cast<uint64_t>(dest);
        args.source_home = in_place ? 1 + source_place : 0;
        args.dest_home = in_place && call.algorithm == CclAlgorithm::two_shot ? 1 + dest_place : 0;
        args.op = call.op;
        args.algorithm = call.algorithm;
        args.digest = 1 + uint64_t(call.op);
        const bool sums = call.op == CclOp::all_reduce || call.op == CclOp::reduce_scatter;
        args.count = sums ? kCount : kCount * sizeof(int32_t);
        rank.launch(sums ? "ccl_reduce_integer" : "ccl_move", sums ? "ccl_reduce_i32" : "ccl_move", shape,
                    args);
        const bool gathers = !sums;
        for (uint64_t i = 0; i < (gathers ? kCount * n : kCount); ++i) {
          const uint64_t part = i / kCount, mine = rank.index() * uint64_t(kCount);
          int32_t wanted =
              call.op == CclOp::all_gather ? sent(part, i % kCount) : sent(part, mine + i % kCount);
          if (sums) {
            wanted = 0;
            for (uint64_t r = 0; r < n; ++r) wanted += sent(r, call.op == CclOp::all_reduce ? i : mine + i);
          }
          if (dest[i] == wanted) continue;
          rank.complain(std::string(call.name) + ", round " + std::to_string(round) + ": element " +
                        std::to_string(i) + " is " + std::to_string(dest[i]));
          break;
        }
      }
    }
    rank.barrier();
  });
}
