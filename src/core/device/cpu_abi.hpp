// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// What a CPU code object and the CPU runtime agree on: plain C layout, so that an object built with
// another compiler or warp size can be loaded.
#pragma once
#include <stdint.h>

extern "C" {
struct MoriCpuLane;

/// Services of the runtime for a running lane. All lanes of a warp (block) must make the same calls.
struct MoriCpuOps {
  void (*yield)(MoriCpuLane*);  ///< lets other lanes, blocks and processes run
  /// Rendezvous of one warp: returns the values all lanes brought. `kind` must agree between them: one of
  /// kMoriCpuSyncWarp, kMoriCpuBallot, kMoriCpuShuffle + bytes. Only the first orders memory.
  const uint64_t* (*warp_exchange)(MoriCpuLane*, uint32_t kind, uint64_t value);
  void (*block_sync)(MoriCpuLane*);
};

/// Who a lane is. The runtime points the code object's thread-local at it before the lane runs.
struct MoriCpuLane {
  uint32_t block, blocks;  ///< index and number of blocks in the grid
  uint32_t warp, warps;    ///< index and number of warps in the block
  uint32_t lane;
  uint32_t spins;  ///< rounds of a waiting loop before it should yield: 0 where other lanes share the thread
  unsigned char* shared;  ///< the block's shared memory, 16-byte aligned
  const MoriCpuOps* ops;
  uint32_t fenced = 0;  ///< under ThreadSanitizer: this lane's relaxed stores are behind a fence
};

struct MoriCpuEntry {
  const char* name;
  void (*run)(const void* args);
  uint64_t args_bytes;
  uint32_t max_threads;  ///< per block, as declared; more are refused at launch as a GPU would
  const MoriCpuEntry* next;
};

struct MoriCpuObject {
  uint32_t abi;  ///< kMoriCpuAbi
  uint32_t warp_size;
  const MoriCpuEntry* entries;
  MoriCpuLane** (*current)();  ///< address of the calling thread's "current lane" pointer
};
}

/// The kinds of warp_exchange. A shuffle adds the size of its value, so that lanes of unequal types are
/// caught.
inline constexpr uint32_t kMoriCpuSyncWarp = 1, kMoriCpuBallot = 2, kMoriCpuShuffle = 0x100;
inline constexpr uint32_t kMoriCpuAbi = 2;
/// Name of the one exported function of a CPU code object: `MoriCpuObject mori_cpu_object()`.
inline constexpr char kMoriCpuObjectSymbol[] = "mori_cpu_object";
