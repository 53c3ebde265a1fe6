// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// An all-to-all by put and signal, the pattern of all our protocols, with a place for each of the mistakes
// that a sanitizer must find. MORI_FAULT picks one:
//
//   0 none            1 the signal is stored relaxed        2 warps count themselves relaxed
//   3 no sync_warp between a warp's rows and its count      4 the signal is awaited relaxed
//   5 no sync_block between the wait and the lanes that read   6 shared memory read without sync_block
//   7 one row too many (AddressSanitizer)
#include "tests/sanitize/exchange.hpp"

#include "src/core/device/prelude.hpp"

#ifndef MORI_FAULT
#define MORI_FAULT 0
#endif

namespace mori {
namespace {

inline constexpr int kFault = MORI_FAULT;

/// Each warp puts its share of the rows for every peer; the last warp raises this rank's signal there.
MORI_DEVICE void put_rows(const ExchangeArgs& args, ExchangeState* state, uint64_t epoch) {
  const World& world = args.world;
  const uint64_t* bases = global<const uint64_t>(world.bases);
  const uint64_t pair_bytes = args.rows * args.row_bytes;
  for (uint32_t step = 0; step < world.world_size; ++step) {
    const uint32_t peer = (world.rank + step) % world.world_size;
    const char* from = global<const char>(args.send) + peer * pair_bytes;
    char* to = global<char>(bases[peer] + kExchangeDataAt) + world.rank * pair_bytes;
    const uint64_t rows = args.rows + (kFault == 7 && world.rank == world.world_size - 1);
    for (uint64_t row = global_warp(); row < rows; row += grid_warps()) {
      warp_copy(to + row * args.row_bytes, from + (row % args.rows) * args.row_bytes, args.row_bytes);
    }
    if constexpr (kFault != 3) sync_warp();
    if (lane_id() != 0) continue;
    constexpr Order count_order = kFault == 2 ? Order::relaxed : Order::acq_rel;
    const uint64_t before = atomic_fetch_add<count_order, Scope::device>(&state->sent[peer], uint64_t(1));
    if (before + 1 != epoch * grid_warps()) continue;
    constexpr Order signal_order = kFault == 1 ? Order::relaxed : Order::release;
    atomic_store<signal_order, Scope::system>(global<uint64_t>(bases[peer]) + world.rank, epoch);
  }
}

MORI_DEVICE void wait_for_peers(const ExchangeArgs& args, uint64_t epoch) {
  const World& world = args.world;
  const uint64_t* signals = global<const uint64_t>(global<const uint64_t>(world.bases)[world.rank]);
  if (warp_id() == 0) {
    for (uint32_t peer = lane_id(); peer < world.world_size; peer += kWarpSize) {
      if constexpr (kFault == 4) {
        for (uint32_t i = 0; load_relaxed<Scope::system>(signals + peer) < epoch; ++i) pause(i);
      } else {
        wait_until(world, signals + peer, epoch, Wait::signal, peer);
      }
    }
  }
  if constexpr (kFault != 5) sync_block();
}

/// Sums what this rank got, every lane its share, plus a value that came round through shared memory.
MORI_DEVICE void read_rows(const ExchangeArgs& args, uint64_t epoch) {
  const World& world = args.world;
  const unsigned char* got =
      global<const unsigned char>(global<const uint64_t>(world.bases)[world.rank] + kExchangeDataAt);
  const uint64_t bytes = world.world_size * args.rows * args.row_bytes;
  const uint64_t me = uint64_t(block_id()) * block_lanes() + block_lane();
  const uint64_t lanes = uint64_t(grid_blocks()) * block_lanes();
  uint64_t sum = 0;
  for (uint64_t i = me; i < bytes; i += lanes) sum += got[i];
  uint64_t* words = shared_memory<uint64_t>();
  words[block_lane()] = epoch;
  if constexpr (kFault != 6) sync_block();
  global<uint64_t>(args.sums)[me] = sum + words[block_lanes() - 1 - block_lane()];
}

}  // namespace

MORI_KERNEL(exchange, ExchangeArgs, 1024) {
  ExchangeState* state = global<ExchangeState>(args.state);
  const uint64_t epoch = load_relaxed<Scope::device>(&state->epoch) + 1;
  put_rows(args, state, epoch);
  wait_for_peers(args, epoch);
  read_rows(args, epoch);
  sync_block();
  if (block_lane() != 0) return;
  const uint64_t before = fetch_add_acq_rel<Scope::device>(&state->leaving, uint64_t(1));
  if (before + 1 == epoch * grid_blocks()) store_release<Scope::device>(&state->epoch, epoch);
}

}  // namespace mori
