// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Runs the blocks of one kernel launch on one operating-system thread.
//
//   CpuJob         a launch: what to run, which blocks are still to be started, the first failure
//   LaneScheduler  a thread's share of it: takes blocks from the job until none is left
//
// Blocks of a single lane run by a plain call when the job says so (`direct`). Otherwise every lane is a
// fiber: lanes meet in the operations of MoriCpuOps, and a lane that waits for memory gives way to the next.
// A block is started when nothing else can run or when a lane gives way, so a launch of more blocks than
// threads cannot deadlock on blocks that wait for each other.
//
// Lanes that do not make the same collective calls are a bug that a GPU answers with a hang or with wrong
// data. Here the launch is abandoned and the error names block, warp, lane and both calls.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

#include "src/core/device/cpu_abi.hpp"
#include "src/core/runtime/fiber.hpp"

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

/// How a thread whose lanes all wait gives way to other threads and processes: ranks are processes, often
/// more of them than cores. First it yields, which is quick when the awaited rank is next in line; after
/// some hundred yields in a row it sleeps for the shortest time the kernel offers (about 50 us).
class BackOff {
 public:
  void give_way();

 private:
  uint32_t in_a_row_ = 0;
  uint64_t last_ns_ = 0;
};

class LaneScheduler {
 public:
  LaneScheduler();
  ~LaneScheduler();
  LaneScheduler(const LaneScheduler&) = delete;
  LaneScheduler& operator=(const LaneScheduler&) = delete;

  /// Runs blocks of the job until none is left to start and all it started are done or abandoned.
  void run(CpuJob& job) noexcept;

 private:
  struct Lane;
  struct Warp;
  struct Block;
  struct SharedMemory {
    unsigned char* data = nullptr;
    size_t bytes = 0;
    SharedMemory() = default;
    SharedMemory(const SharedMemory&) = delete;
    SharedMemory& operator=(const SharedMemory&) = delete;
    ~SharedMemory() { reset(); }
    void reset() {
      ::operator delete(data, std::align_val_t(64));
      data = nullptr;
    }
    void poison(size_t wanted);
    bool guard_intact() const;
  };

  // The operations of a running lane (MoriCpuOps).
  static void yield(MoriCpuLane* lane);
  static const uint64_t* warp_exchange(MoriCpuLane* lane, uint32_t kind, uint64_t value);
  static void block_sync(MoriCpuLane* lane);
  static void run_lane(void* lane);
  static const MoriCpuOps kFiberOps, kDirectOps;

  static void check_guard(CpuJob& job, uint32_t block, const SharedMemory& shared);
  void run_direct(CpuJob& job);
  void run_fibers(CpuJob& job);
  void start_block(uint32_t index);
  void resume(Lane& lane);
  Lane* next_prepared();
  void leave(Lane& lane);
  [[noreturn]] void leave_for_good(Lane& lane);
  [[noreturn]] void diverged(Lane& lane, uint32_t kind, Lane& other, uint32_t other_kind);
  void check_arrival(Lane& lane, uint32_t kind);
  void give_back_blocks();

  void push(Lane& lane);
  Lane* pop();

  CpuJob* job_ = nullptr;
  MoriCpuLane** slot_ = nullptr;  ///< the code object's "current lane" of this thread
  Fiber home_;
  Lane* head_ = nullptr;  ///< lanes that can run, first in first out
  Lane* tail_ = nullptr;
  uint32_t ready_ = 0;
  uint32_t fruitless_ = 0;   ///< yields since a lane last got anywhere
  bool want_block_ = false;  ///< a lane gave way while blocks are unstarted
  BackOff back_off_;
  SharedMemory direct_shared_;
  uint32_t finished_blocks_ = 0;    ///< among live_, that may be used again
  std::vector<void*> stacks_;       ///< free for the next lane
  std::vector<void*> used_stacks_;  ///< of ended lanes, when they may not be used again in this launch
  size_t stack_count_ = 0;          ///< of stacks_, used_stacks_ and lanes
  std::vector<std::unique_ptr<Block>> live_, idle_;
  char lanes_begin_ = 0, lanes_end_ = 0;  ///< addresses for ThreadSanitizer
};

}  // namespace mori::core
