// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Flags of mori/blocks.hpp for tests/device/test_blocks_flags.py and the sanitizers.
#include "blocks_flags.hpp"

#include <mori/blocks.hpp>

namespace mori {
/// Block 0 writes `count` rounds of one word for each lane through a ring of `value` slots, block 1 keeps the
/// sum over rounds of what each lane of it read from its neighbour's place. words: filled, emptied, ring.
template <class Group>
MORI_DEVICE void through_ring(const FlagArgs& a, const Group& group) {
  uint64_t* words = global<uint64_t>(a.words);
  const blocks::Ring<Scope::device> ring{words, words + 1, a.value};
  const uint32_t lanes = group.lanes(), lane = group.lane();
  uint64_t sum = 0;
  for (uint64_t round = 1; round <= a.count; ++round) {
    uint64_t* slot = words + 2 + ring.slot(round) * lanes;
    if (block_id() == 0) {
      if (!ring.await_free(group, a.world, round, 1)) return;
      slot[lane] = round * 1000 + lane;
      ring.fill(group, round);
    } else {
      if (!ring.await_filled(group, a.world, round, 0)) return;
      sum += slot[(lane + 1) % lanes];
      ring.release(group, round);
    }
  }
  if (block_id() == 1) global<uint64_t>(a.out)[lane] = sum;
}
MORI_KERNEL(ring_by_warp, FlagArgs, 256) {
  if (warp_id() == 0) through_ring(args, Warp{});
}
MORI_KERNEL(ring_by_block, FlagArgs, 256) { through_ring(args, Block{shared_memory<uint32_t>()}); }

/// Every block adds up what all blocks wrote, if it is the last; out: sum, launch, how many were last.
/// words: counter, epoch, arrivals, a word for each lane.
MORI_KERNEL(last_block_sums, FlagArgs, 256) {
  const Block block{shared_memory<uint32_t>()};
  uint64_t *words = global<uint64_t>(args.words), *out = global<uint64_t>(args.out);
  const uint64_t all = uint64_t(grid_blocks()) * block_lanes();
  uint64_t epoch = 0;
  if (block_lane() == 0) epoch = blocks::begin_epoch(words + 1, reinterpret_cast<uint32_t*>(words + 2));
  epoch = block.broadcast_word(epoch);
  uint64_t* mine = words + 3;
  mine[block_id() * block_lanes() + block_lane()] = epoch * args.value;
  if (!blocks::last_to_arrive(block, words, grid_blocks())) return;
  if (block_lane() != 0) return;
  uint64_t sum = 0;
  for (uint64_t i = 0; i < all; ++i) sum += mine[i];
  out[0] = sum;
  out[1] = epoch;
  out[2] += 1;
}

/// A flag that nobody raises. out: 1 in the lanes that were told so.
MORI_KERNEL(await_nothing, FlagArgs, 256) {
  const Block block{shared_memory<uint32_t>()};
  const bool came = blocks::await(block, args.world, global<uint64_t>(args.words), args.value, 3);
  if (!came) global<uint64_t>(args.out)[block_lane()] = 1;
}
}  // namespace mori
