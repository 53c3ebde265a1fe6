// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// C = (A of rank 0; A of rank 1; ...) * B in one kernel: every rank has some rows of A and its own B. Rows go
// to the other ranks in chunks, each with a signal behind it, while the blocks multiply what is there
// already: first the rank's own rows, then those of rank + 1, rank + 2, ...; rank - 1 is sent to first, as it
// needs our rows first.
//
//   arrived[rank * chunks + c]   round in which chunk c of that rank's rows came; set by that rank
//   taken[rank]                  round up to which that rank has read what we sent it; set by that rank
//
// Both only grow, so nothing is reset between launches. Rows of round r + 1 are sent to whom has taken round
// r.
#include <mori/shmem.hpp>

namespace mori {

struct AllgatherMatmulArgs {
  World world;
  uint64_t a;         // float[rows][depth], mine
  uint64_t b;         // float[depth][columns]
  uint64_t c;         // float[ranks * rows][columns]
  uint64_t gathered;  // symmetric: float[ranks][rows][depth]
  uint64_t arrived;   // symmetric: uint64[ranks][chunks], 0 at first
  uint64_t taken;     // symmetric: uint64[ranks], 0 at first
  uint64_t state;     // uint64[2], 0 at first: rounds done, blocks that have ended
  uint32_t rows, depth, columns;
  uint32_t chunks;   // of a rank's rows; at most `rows`
  uint32_t senders;  // blocks that send before they multiply; at most all of the launch
};

namespace {
inline namespace MORI_TARGET_NAMESPACE {

constexpr uint32_t kRows = 4, kColumns = 8;  // of C in the registers of one lane

struct Rows {
  uint32_t first, count;
};
MORI_DEVICE Rows rows_of(const AllgatherMatmulArgs& args, uint32_t chunk) {
  const uint32_t first = uint32_t(uint64_t(args.rows) * chunk / args.chunks);
  return {first, uint32_t(uint64_t(args.rows) * (chunk + 1) / args.chunks) - first};
}

/// Sends my rows to everybody, with the other senders. Callers: the block.
MORI_DEVICE bool send(const AllgatherMatmulArgs& args, shmem::Block block, uint64_t round) {
  const uint32_t me = shmem::my_pe(args.world), n = shmem::n_pes(args.world);
  uint64_t* arrived = global<uint64_t>(args.arrived) + uint64_t(me) * args.chunks;
  float* place = global<float>(args.gathered) + uint64_t(me) * args.rows * args.depth;
  for (uint32_t i = block_id(); i < (n - 1) * args.chunks; i += args.senders) {
    const uint32_t pe = (me + n - 1 - i / args.chunks) % n, chunk = i % args.chunks;
    const uint64_t* taken = global<uint64_t>(args.taken) + pe;
    if (!shmem::signal_wait_until(block, args.world, taken, shmem::Cmp::ge, round - 1, pe)) return false;
    const Rows rows = rows_of(args, chunk);
    const uint64_t from = uint64_t(rows.first) * args.depth;
    shmem::put_signal(block, args.world, place + from, global<const float>(args.a) + from,
                      uint64_t(rows.count) * args.depth, arrived + chunk, round, shmem::SignalOp::set, pe);
  }
  return true;
}

/// kRows rows of C, in the columns of one tile. Callers: the warp.
MORI_DEVICE void multiply_rows(const AllgatherMatmulArgs& args, const float* a, float* c, uint32_t count,
                               uint32_t first_column) {
  const float* b = global<const float>(args.b);
  const float* row[kRows];
  uint32_t column[kColumns];
  float sum[kRows][kColumns] = {};
  MORI_UNROLL
  for (uint32_t r = 0; r < kRows; ++r) row[r] = a + uint64_t(r < count ? r : count - 1) * args.depth;
  MORI_UNROLL
  for (uint32_t j = 0; j < kColumns; ++j) {
    const uint32_t wanted = first_column + lane_id() + j * kWarpSize;
    column[j] = wanted < args.columns ? wanted : args.columns - 1;
  }
  for (uint32_t k = 0; k < args.depth; ++k) {
    float values[kColumns];
    MORI_UNROLL
    for (uint32_t j = 0; j < kColumns; ++j) values[j] = b[uint64_t(k) * args.columns + column[j]];
    MORI_UNROLL
    for (uint32_t r = 0; r < kRows; ++r) {
      const float factor = row[r][k];
      MORI_UNROLL
      for (uint32_t j = 0; j < kColumns; ++j) sum[r][j] += multiply(factor, values[j]);
    }
  }
  MORI_UNROLL
  for (uint32_t r = 0; r < kRows; ++r) {
    MORI_UNROLL
    for (uint32_t j = 0; j < kColumns; ++j) {
      const uint32_t wanted = first_column + lane_id() + j * kWarpSize;
      if (r < count && wanted < args.columns) c[uint64_t(r) * args.columns + wanted] = sum[r][j];
    }
  }
}

/// Multiplies all ranks' rows, with all blocks of the launch. Callers: the block.
MORI_DEVICE bool multiply_all(const AllgatherMatmulArgs& args, shmem::Block block, uint64_t round) {
  const uint32_t me = shmem::my_pe(args.world), n = shmem::n_pes(args.world);
  const uint32_t width = kWarpSize * kColumns, tiles = (args.columns + width - 1) / width;
  for (uint32_t i = block_id(); i < n * args.chunks * tiles; i += grid_blocks()) {
    const uint32_t pe = (me + i / (args.chunks * tiles)) % n, chunk = i / tiles % args.chunks;
    const uint64_t* arrived = global<uint64_t>(args.arrived) + uint64_t(pe) * args.chunks + chunk;
    if (pe != me && !shmem::signal_wait_until(block, args.world, arrived, shmem::Cmp::ge, round, pe))
      return false;
    const float* a = global<const float>(args.gathered) + uint64_t(pe) * args.rows * args.depth;
    if (pe == me) a = global<const float>(args.a);
    const Rows rows = rows_of(args, chunk);
    for (uint32_t r = warp_id() * kRows; r < rows.count; r += warps_per_block() * kRows) {
      const uint64_t row = rows.first + r;
      multiply_rows(args, a + row * args.depth,
                    global<float>(args.c) + (uint64_t(pe) * args.rows + row) * args.columns, rows.count - r,
                    i % tiles * width);
    }
  }
  return true;
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace

/// All blocks must run at the same time. Shared memory: 4 bytes.
MORI_KERNEL(allgather_matmul, AllgatherMatmulArgs, 256) {
  const shmem::Block block{shared_memory<uint32_t>()};
  uint64_t* state = global<uint64_t>(args.state);
  const uint64_t round = state[0] + 1;
  if (block_id() < args.senders && !send(args, block, round)) return;
  if (!multiply_all(args, block, round)) return;

  block.sync();  // all have read what came, and their own rows
  bool last = false;
  if (block.lane() == 0) last = fetch_add_acq_rel<Scope::device>(state + 1, uint64_t(1)) + 1 == grid_blocks();
  if (!block.broadcast(last)) return;
  const uint32_t me = shmem::my_pe(args.world), n = shmem::n_pes(args.world);
  for (uint32_t k = 1; k < n; ++k) {
    shmem::put_signal(block, args.world, state, state, 0, global<uint64_t>(args.taken) + me, round,
                      shmem::SignalOp::set, (me + k) % n);
  }
  if (block.lane() == 0) {
    state[1] = 0;
    state[0] = round;
  }
}

}  // namespace mori
