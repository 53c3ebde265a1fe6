// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Runs the exchange on ranks as threads, on stream 0 and on a stream of its own by turns, and looks at the
// data with plain reads as soon as a launch is done.
#include <vector>

#include "tests/sanitize/exchange.hpp"
#include "tests/sanitize/ranks.hpp"

using namespace mori;
using namespace mori::sanitize;

namespace {
constexpr uint32_t kRows = 8, kRowBytes = 128;

uint8_t payload(uint32_t from, uint32_t to, uint32_t offset, uint32_t round) {
  return uint8_t(offset * 7 + from * 31 + to * 57 + round * 13);
}
}  // namespace

int main(int argc, char** argv) {
  const Options o = options(argc, argv);
  const uint32_t pair_bytes = kRows * kRowBytes;
  Ranks ranks(o, kExchangeDataAt + size_t(o.ranks) * pair_bytes);
  return ranks.run([&](Rank& rank) {
    std::vector<uint8_t> send(size_t(o.ranks) * pair_bytes);
    std::vector<uint64_t> sums(size_t(o.blocks) * o.warps * o.lanes);
    ExchangeState state{};
    const ExchangeArgs args{
        rank.world(), uint64_t(send.data()), uint64_t(&state), uint64_t(sums.data()), kRows, kRowBytes};
    const core::LaunchShape shape{o.blocks, o.warps, o.warps * o.lanes * uint32_t(sizeof(uint64_t))};
    const uint64_t own_stream = rank.device().create_stream();
    for (uint32_t round = 1; round <= o.rounds; ++round) {
      for (uint32_t to = 0; to < o.ranks; ++to) {
        for (uint32_t i = 0; i < pair_bytes; ++i)
          send[to * pair_bytes + i] = payload(rank.index(), to, i, round);
      }
      const uint64_t stream = round % 2 ? 0 : own_stream;
      rank.launch("exchange", "exchange", shape, args, stream);
      rank.device().synchronize(stream);
      const uint8_t* got = rank.heap() + kExchangeDataAt;
      uint64_t expected = uint64_t(round) * sums.size(), seen = 0;
      for (uint32_t from = 0; from < o.ranks; ++from) {
        for (uint32_t i = 0; i < pair_bytes; ++i) {
          const uint8_t byte = payload(from, rank.index(), i, round);
          expected += byte;
          if (got[from * pair_bytes + i] != byte)
            rank.complain("wrong byte from rank " + std::to_string(from));
        }
      }
      for (const uint64_t sum : sums) seen += sum;
      if (seen != expected) rank.complain("wrong sum in round " + std::to_string(round));
      rank.barrier();  // nobody overwrites what a peer still reads
    }
    rank.device().destroy_stream(own_stream);
  });
}
