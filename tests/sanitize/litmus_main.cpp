// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The litmus tests of one direction on ranks as threads: what a fence, a signal or a wait fails to order is a
// data race on the payload, which is read with plain loads. TEST as sixth number: the number of the litmus
// test.
#include <string>

#include "tests/sanitize/ranks.hpp"
#include "tests/shmem/litmus/litmus.hpp"

using namespace mori;
using namespace mori::sanitize;

int main(int argc, char** argv) {
  const Options o = options(argc, argv);
  const uint32_t blocks = 1, test = o.blocks;
  Ranks ranks(o, blocks * sizeof(LitmusWords));
  return ranks.run([&](Rank& rank) {
    uint64_t wrong = 0;
    const LitmusArgs args{.world = rank.world(),
                          .words = reinterpret_cast<uint64_t>(rank.heap()),
                          .rounds = 20ull * o.rounds,
                          .results = reinterpret_cast<uint64_t>(&wrong),
                          .test = Litmus(test),
                          .words_of_data = 5};
    rank.launch("litmus", "litmus_run", {blocks, 1, 16}, args);
    if (wrong != 0) rank.complain(std::to_string(wrong) + " words were older than their flag");
  });
}
