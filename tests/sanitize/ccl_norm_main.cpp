// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// all_reduce + residual + RMSNorm on ranks as threads, calls with nothing between: staging, the results of
// warps and the rows that lanes read again are plain accesses, so a sanitizer sees every missing ordering.
#include <cmath>
#include <string>
#include <vector>

#include "src/ops/ccl/ccl_args.hpp"
#include "tests/sanitize/ranks.hpp"

using namespace mori;
using namespace mori::sanitize;

int main(int argc, char** argv) {
  const Options o = options(argc, argv);
  const uint64_t n = o.ranks, hidden = 136, rows = 5, chunk = 2 * hidden * sizeof(float);
  uint64_t at = 0;
  const auto place = [&](uint64_t bytes) {
    const uint64_t begin = at;
    at += (bytes + 15) / 16 * 16;
    return begin;
  };
  CclNormArgs common{};
  common.ccl.signals = place(o.blocks * n * 8);
  common.ccl.told = place(o.blocks * 2 * 3 * n * 8);
  common.ccl.counters = place(o.blocks * 2 * 8);
  common.ccl.staging = place(o.blocks * 3 * chunk);
  common.ccl.chunk_bytes = chunk;
  common.ccl.members = o.ranks;
  common.ccl.count = rows;
  common.ccl.op = CclOp::all_reduce;
  common.hidden = hidden;
  for (uint32_t r = 0; r < o.ranks; ++r) common.ccl.ranks[r] = uint8_t(r);
  Ranks ranks(o, at);
  return ranks.run([&](Rank& rank) {
    std::vector<float> source(rows * hidden), kept(rows * hidden), normed(rows * hidden), weight(hidden, 2),
        scales(rows * 2);
    for (uint32_t round = 0; round < 2 * o.rounds; ++round) {
      for (const CclAlgorithm algorithm : {CclAlgorithm::one_shot, CclAlgorithm::two_shot}) {
        for (uint32_t codes = 0; codes < 3; ++codes) {
          // every row is of one number: its norm is 1
          const auto sent = [&](uint64_t r, uint64_t row) { return float(1 + r + row + round % 7); };
          for (uint64_t i = 0; i < source.size(); ++i) source[i] = sent(rank.index(), i / hidden);
          CclNormArgs args = common;
          args.ccl.world = rank.world();
          args.ccl.index = rank.index();
          args.ccl.source = reinterpret_cast<uint64_t>(source.data());
          args.ccl.dest = reinterpret_cast<uint64_t>(normed.data());
          args.ccl.algorithm = algorithm;
          args.ccl.digest = 1 + uint64_t(algorithm) * 3 + codes;
          args.residual_out = reinterpret_cast<uint64_t>(kept.data());
          args.weight = reinterpret_cast<uint64_t>(weight.data());
          args.scales = reinterpret_cast<uint64_t>(scales.data());
          args.codes = codes;
          // 512 lanes, or one
          const core::LaunchShape shape{o.blocks, o.lanes == 1 ? 1 : 512 / o.lanes, 16 + 256};
          rank.launch("ccl_norm", "ccl_norm_fp32", shape, args);
          for (uint64_t i = 0; i < kept.size(); ++i) {
            float sum = 0;
            for (uint64_t r = 0; r < n; ++r) sum += sent(r, i / hidden);
            const bool right = kept[i] == sum && (codes != 0 || std::fabs(normed[i] - 2) < 1e-5f);
            if (right) continue;
            rank.complain("round " + std::to_string(round) + ": element " + std::to_string(i) + " is " +
                          std::to_string(kept[i]) + ", " + std::to_string(normed[i]));
            break;
          }
        }
      }
    }
    rank.barrier();
  });
}
