// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Dispatch and combine on ranks as threads, through the product's own host side. There is no barrier between
// the rounds: what keeps a round from overwriting the one before is the protocol alone.
#include <random>
#include <vector>

#include "src/core/context.hpp"
#include "src/ops/ep/dispatcher.hpp"
#include "tests/sanitize/ranks.hpp"

using namespace mori;
using namespace mori::sanitize;

namespace {

constexpr uint32_t kHidden = 36, kTokens = 7, kTopk = 3, kLive = 2;  // 36 floats: not a whole number of warps

float value_of(uint32_t rank, uint32_t token, uint32_t column, uint32_t round) {
  return float(rank * 1000 + token * 50 + column + round * 7);  // exact in fp32, and so are sums of three
}

/// Distinct experts for each token, and now and then none.
std::vector<int64_t> route(uint32_t rank, uint32_t round, uint32_t experts) {
  std::mt19937 random(rank * 977 + round);
  std::vector<int64_t> ids(kTokens * kTopk, -1);
  for (uint32_t t = 0; t < kTokens; ++t) {
    const uint32_t first = random() % experts;
    for (uint32_t k = 0; k < kTopk; ++k) {
      if (random() % 8 != 0) ids[t * kTopk + k] = (first + k * (1 + random() % 2)) % experts;
    }
    for (uint32_t k = 1; k < kTopk; ++k) {
      for (uint32_t j = 0; j < k; ++j) {
        if (ids[t * kTopk + j] == ids[t * kTopk + k]) ids[t * kTopk + k] = -1;
      }
    }
  }
  return ids;
}

uint64_t address(const void* p) { return reinterpret_cast<uint64_t>(p); }

}  // namespace

int main(int argc, char** argv) {
  const Options o = options(argc, argv);
  const uint32_t experts = o.ranks * 2 + (o.ranks == 1);
  ep::Config config{};
  config.row_bytes = config.combine_row_bytes = kHidden * sizeof(float);
  config.capacity = uint64_t(o.ranks) * kTokens;
  config.world_size = o.ranks;
  config.num_experts = experts;
  config.topk = kTopk;
  config.max_tokens = kTokens;
  config.live_results = kLive;
  const ep::Layout layout = ep::make_layout(config);
  std::vector<int32_t> expert_rank;
  for (uint32_t e = 0; e < experts; ++e) expert_rank.push_back(int32_t(e % o.ranks));

  Ranks ranks(o, layout.heap_bytes);
  return ranks.run([&](Rank& rank) {
    const auto context = std::make_shared<core::Context>(
        rank.shared_device(),
        core::Group{rank.index(), o.ranks, rank.world().bases, rank.world().timeout_ticks, 1});
    ep::Dispatcher dispatcher(context, config, 0, expert_rank, {o.blocks, o.warps});
    rank.barrier();
    std::vector<float> x(kTokens * kHidden), out(kTokens * kHidden);
    std::vector<uint64_t> routing(layout.routing_bytes / 8);
    for (uint32_t round = 0; round < o.rounds; ++round) {
      const uint32_t tokens = kTokens - (rank.index() + round) % 2;
      const std::vector<int64_t> ids = route(rank.index(), round, experts);
      for (uint32_t i = 0; i < x.size(); ++i) x[i] = value_of(rank.index(), i / kHidden, i % kHidden, round);
      const uint32_t buffer = round % kLive;
      dispatcher.dispatch(
          {address(x.data()), address(ids.data()), 0, 0, address(routing.data()), tokens, 8, buffer}, 0);
      const unsigned char* received = rank.heap() + layout.receive_buffers[buffer];
      const auto* rows = reinterpret_cast<const float*>(received + layout.receive.rows);
      const auto* sources = reinterpret_cast<const int64_t*>(received + layout.receive.sources);
      for (uint64_t row = 0; row < routing[1]; ++row) {
        const uint32_t from = uint32_t(sources[row] >> 32), token = uint32_t(sources[row]);
        for (uint32_t c = 0; c < kHidden; ++c) {
          if (rows[row * kHidden + c] != value_of(from, token, c, round)) {
            rank.complain("round " + std::to_string(round) + ": row " + std::to_string(row) + " is wrong");
            break;
          }
        }
      }
      dispatcher.combine({address(rows), address(out.data()), 0, 0, 0, address(routing.data()), tokens, 8,
                          kHidden, uint32_t(routing[1]), ep::Element::fp32},
                         0);
      for (uint32_t token = 0; token < tokens; ++token) {
        uint64_t visited = 0;
        for (uint32_t k = 0; k < kTopk; ++k) {
          const int64_t id = ids[token * kTopk + k];
          if (id >= 0) visited |= uint64_t(1) << expert_rank[size_t(id)];
        }
        for (uint32_t c = 0; c < kHidden; ++c) {
          const float expected = float(__builtin_popcountll(visited)) * x[token * kHidden + c];
          if (out[token * kHidden + c] != expected) {
            rank.complain("round " + std::to_string(round) + ": combined token " + std::to_string(token) +
                          " is wrong");
            break;
          }
        }
      }
      const ErrorWord error = context->error();
      if (error.state != 0) {
        rank.complain(std::string("error word: ") + core::wait_name(Wait(error.wait)) + ", " +
                      core::refusal_name(Refusal(error.refusal)));
      }
    }
  });
}
