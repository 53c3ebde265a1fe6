// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// What the threads of the CPU device share about a launch (CpuJob), and two things each of them needs for it:
// a block's shared memory (BlockMemory) and a way to wait for others (BackOff).
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <mutex>

#include "src/core/device/cpu_abi.hpp"

namespace mori::core {

/// What a block's shared memory holds before the kernel writes it: a kernel that relies on zeros is wrong.
inline constexpr unsigned char kSharedPoison = 0xA5;

/// One launch, shared by the threads that run it.
struct CpuJob {
  void (*run)(const void*) = nullptr;
  const void* args = nullptr;
  const char* name = "";
  uint32_t blocks = 1;
  uint32_t warps = 1;  ///< per block
  uint32_t warp_size = 1;
  uint32_t shared_bytes = 0;             ///< per block
  MoriCpuLane** (*current)() = nullptr;  ///< of the code object
  bool direct = false;                   ///< one lane per block and no more blocks than threads

  std::atomic<uint32_t> started{0};
  std::atomic<bool> abandoned{false};

  uint32_t lanes() const { return warps * warp_size; }
  bool has_blocks() const {
    return started.load(std::memory_order_relaxed) < blocks && !abandoned.load(std::memory_order_relaxed);
  }
  /// Reserves the next block; false when all are started.
  bool take_block(uint32_t& block);
  /// Records a failure (the first one wins) and makes all threads leave the launch.
  void abandon(std::exception_ptr why);
  /// The failure, after all threads have left.
  std::exception_ptr failure() const { return failure_; }

 private:
  std::mutex mutex_;
  std::exception_ptr failure_;
};

/// The shared memory of one block at a time: exactly sized, poisoned for each block, with a guard behind it.
class BlockMemory {
 public:
  BlockMemory() = default;
  ~BlockMemory() { release(); }
  BlockMemory(const BlockMemory&) = delete;
  BlockMemory& operator=(const BlockMemory&) = delete;

  /// Memory for the next block; null when bytes is 0.
  unsigned char* prepare(size_t bytes);
  /// False when the block wrote behind it.
  bool guard_intact() const;

 private:
  void release();
  unsigned char* data_ = nullptr;
  size_t bytes_ = 0;
};

/// How a thread whose lanes all wait gives way to other threads and processes: ranks are processes, often
/// more of them than cores. First it yields, which is quick when the awaited rank is next in line; after
/// some yields in a row it sleeps for the shortest time the kernel offers (about 50 us).
class BackOff {
 public:
  void give_way();

 private:
  uint32_t in_a_row_ = 0;
  uint64_t last_ns_ = 0;
};

}  // namespace mori::core
