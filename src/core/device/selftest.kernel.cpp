// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The prelude, tried on the target itself: tests/device/ runs these kernels on every kind of device and
// compares with what NumPy says. They are written as kernels should be: for any warp size and launch shape.
#include "src/core/device/selftest.hpp"

#include "src/core/device/numeric.hpp"
#include "src/core/device/prelude.hpp"

namespace mori {

/// Does nothing: the cost of a launch.
MORI_KERNEL(selftest_nop, SelfTestArgs, 1024) { (void)args; }

/// out: uint64[lanes of the grid][8]: block, warp, lane, mask of lanes divisible by 3, the next lane's
/// lane * 7 + value as uint32, the first lane's 64-bit pattern, whether any lane equals `value`, sizes.
MORI_KERNEL(selftest_lanes, SelfTestArgs, 1024) {
  const uint32_t lane = lane_id();
  uint64_t* out = global<uint64_t>(args.out) + 8 * (uint64_t(global_warp()) * kWarpSize + lane);
  const mask_t thirds = ballot(lane % 3 == 0);
  const uint32_t next = shuffle(uint32_t(lane * 7 + args.value), (lane + 1) % kWarpSize);
  const uint64_t wide = shuffle(uint64_t(lane) << 40 | block_id(), first_lane(thirds));
  const bool found = any(lane == args.value);
  out[0] = block_id();
  out[1] = warp_id();
  out[2] = lane;
  out[3] = thirds;
  out[4] = next;
  out[5] = wide;
  out[6] = found;
  out[7] = uint64_t(kWarpSize) << 48 | uint64_t(count_lanes(thirds)) << 40 |
           uint64_t(warps_per_block()) << 20 | grid_blocks();
}

/// Every lane leaves a word in shared memory and reads the one of its mirror image in the block, `value`
/// times. out: uint64[lanes of the grid]: the sum of what it read. out[lanes of the grid + block]: the
/// first word of shared memory before anybody wrote it. Shared memory: 8 bytes for each lane.
MORI_KERNEL(selftest_shared, SelfTestArgs, 1024) {
  uint64_t* words = shared_memory<uint64_t>();
  const uint32_t me = block_lane(), lanes = block_lanes();
  if (me == 0) global<uint64_t>(args.out)[uint64_t(grid_blocks()) * lanes + block_id()] = words[0];
  sync_block();
  uint64_t sum = 0;
  for (uint64_t round = 0; round < args.value; ++round) {
    words[me] = (round + 1) * 1000 + me;
    sync_block();
    sum += words[lanes - 1 - me];
    sync_block();
  }
  global<uint64_t>(args.out)[uint64_t(block_id()) * lanes + me] = sum;
}

/// Every lane takes `value` tickets from the counter out[0] and marks each in out[1 + ticket]; in: a second
/// counter, of 32 bits.
MORI_KERNEL(selftest_count, SelfTestArgs, 1024) {
  uint64_t* out = global<uint64_t>(args.out);
  for (uint64_t i = 0; i < args.value; ++i) {
    const uint64_t ticket = fetch_add_relaxed<Scope::device>(out, uint64_t(1));
    fetch_add_relaxed<Scope::device>(out + 1 + ticket, uint64_t(1));
    fetch_add_acq_rel<Scope::system>(global<uint32_t>(args.in), 1u);
  }
}

/// Each warp copies its row of `count` bytes (a multiple of 16) from in to out.
MORI_KERNEL(selftest_copy, SelfTestArgs, 1024) {
  const uint64_t row = uint64_t(global_warp()) * args.count;
  // 1024 threads have 64 registers each on sm_80: eight vectors in flight would be spilled
  warp_copy<4>(global<char>(args.out) + row, global<const char>(args.in) + row, args.count);
}

/// One lane waits until *in >= value, for peer `count`. out[0]: 1 when it came, 2 when the wait failed.
MORI_KERNEL(selftest_wait, SelfTestArgs, 1024) {
  if (block_id() == 0 && block_lane() == 0) {
    const bool came =
        wait_until(args.world, global<const uint64_t>(args.in), args.value, Wait::signal, args.count);
    global<uint64_t>(args.out)[0] = came ? 1 : 2;
  }
  sync_block();
}

/// Blocks wait for each other `value` times: in: uint64 counter, zero. out: uint64[blocks]: what each
/// block read of its neighbour's word after each round, summed; out[blocks + 2 * block + parity]: the words.
MORI_KERNEL(selftest_grid, SelfTestArgs, 1024) {
  uint64_t* arrived = global<uint64_t>(args.in);
  uint64_t* words = global<uint64_t>(args.out) + grid_blocks();
  uint64_t sum = 0;
  for (uint64_t round = 1; round <= args.value; ++round) {
    if (block_lane() == 0) {
      words[2 * block_id() + round % 2] = round * 100 + block_id();
      fetch_add_acq_rel<Scope::device>(arrived, uint64_t(1));
      if (wait_until<Scope::device>(args.world, arrived, round * grid_blocks(), Wait::grid, block_id())) {
        sum += words[2 * ((block_id() + 1) % grid_blocks()) + round % 2];
      }
    }
    sync_block();
  }
  if (block_lane() == 0) global<uint64_t>(args.out)[block_id()] = sum;
}

/// in: float[count]. out: uint16[2][count]: as bfloat16 and as float16.
MORI_KERNEL(selftest_narrow, SelfTestArgs, 1024) {
  for (uint64_t i = block_id() * block_lanes() + block_lane(); i < args.count;
       i += uint64_t(grid_blocks()) * block_lanes()) {
    const float value = global<const float>(args.in)[i];
    from_float(value, global<bfloat16>(args.out)[i]);
    from_float(value, global<float16>(args.out)[args.count + i]);
  }
}

/// in: uint16[count]. out: float[2][count]: what they are as bfloat16 and as float16.
MORI_KERNEL(selftest_widen, SelfTestArgs, 1024) {
  for (uint64_t i = block_id() * block_lanes() + block_lane(); i < args.count;
       i += uint64_t(grid_blocks()) * block_lanes()) {
    global<float>(args.out)[i] = to_float(global<const bfloat16>(args.in)[i]);
    global<float>(args.out)[args.count + i] = to_float(global<const float16>(args.in)[i]);
  }
}

/// Wrong on purpose, each `value` in its own way. The lane-accurate CPU target must name the culprit; not
/// for GPUs, where all of them are undefined.
MORI_KERNEL(selftest_diverge, SelfTestArgs, 1024) {
  const bool odd = block_id() == grid_blocks() - 1 && block_lane() == block_lanes() - 1;
  uint64_t* out = global<uint64_t>(args.out);
  switch (args.value) {
    case 0:  // leaves while others wait for it
      if (odd) return;
      sync_warp();
      break;
    case 1:  // in another collective of the warp
      out[0] = odd ? ballot(true) : shuffle(uint64_t(1), 0);
      break;
    case 2:  // shuffles a value of another size
      out[0] = odd ? shuffle(uint32_t(1), 0) : shuffle(uint64_t(1), 0);
      break;
    case 3:  // waits for the block while its warp waits for it
      if (odd) {
        sync_block();
      } else {
        sync_warp();
      }
      break;
    case 4:  // leaves while its block waits
      if (odd) return;
      sync_block();
      break;
    case 5:  // a whole warp leaves while its block waits
      if (block_id() == grid_blocks() - 1 && warp_id() == warps_per_block() - 1) return;
      sync_block();
      break;
    case 6:  // writes behind its shared memory of `count` bytes
      if (block_lane() == 0) shared_memory<volatile char>()[args.count] = 1;
      break;
    default:
      break;
  }
}

}  // namespace mori
