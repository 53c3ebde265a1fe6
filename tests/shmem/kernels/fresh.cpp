// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Looks at a peer's bytes by get again and again, for tests/shmem/test_get_is_fresh.py.
#include <mori/shmem.hpp>

namespace mori {
struct FreshArgs {
  World world;
  uint64_t watched;  // symmetric: bytes of PE 0
  uint64_t started;  // symmetric: uint64_t of PE 0, raised when the first look is over
  uint64_t into;     // bytes here
  uint64_t bytes;
  uint64_t skew;  // of `watched` and of `into`
};

MORI_DEVICE bool all_are(const unsigned char* bytes, uint64_t count, unsigned char value) {
  bool are = true;
  for (uint64_t i = lane_id(); i < count; i += kWarpSize) are = are && bytes[i] == value;
  return Warp::all(are);
}

/// PE 1 gets until all bytes are 7; PE 0 writes them when PE 1 has looked once. One warp each.
MORI_KERNEL(look_again, FreshArgs, 64) {
  const shmem::Ctx ctx(args.world);
  unsigned char* watched = global<unsigned char>(args.watched + args.skew);
  uint64_t* started = global<uint64_t>(args.started);
  if (shmem::my_pe(ctx) == 0) {
    if (!shmem::signal_wait_until(Warp{}, ctx, started, shmem::Cmp::ge, 1, 1)) return;
    for (uint64_t i = lane_id(); i < args.bytes; i += kWarpSize) watched[i] = 7;
    shmem::quiet(Warp{}, ctx);
    return;
  }
  unsigned char* into = global<unsigned char>(args.into + args.skew);
  const uint64_t start = clock_ticks();
  do {
    shmem::getmem(Warp{}, ctx, into, watched, args.bytes, 0);
    if (lane_id() == 0) shmem::signal_op(ctx, started, uint64_t(1), shmem::SignalOp::set, 0);
    if (Warp::all(clock_ticks() - start > args.world.timeout_ticks)) return;
    pause(64);
  } while (!all_are(into, args.bytes, 7));
}
}  // namespace mori
