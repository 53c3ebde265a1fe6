// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Runs the blocks of one kernel launch on one operating-system thread.
//
// A thread takes blocks from the job (cpu_job.hpp) until none is left. Blocks of a single lane run by a plain
// call when the job says so (`direct`). Otherwise every lane is a fiber: lanes meet in the operations of
// MoriCpuOps, and a lane that waits for memory gives way to the next. A block is started when nothing else
// can run or when a lane gives way, so a launch of more blocks than threads cannot deadlock on blocks that
// wait for each other.
//
// Lanes that do not make the same collective calls are a bug that a GPU answers with a hang or with wrong
// data. Here the launch is abandoned and the error names block, warp, lane and both calls.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "src/core/device/cpu_abi.hpp"
#include "src/core/runtime/cpu_job.hpp"
#include "src/core/runtime/fiber.hpp"

namespace mori::core {

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

  // The operations of a running lane (MoriCpuOps).
  static void yield(MoriCpuLane* lane);
  static const uint64_t* warp_exchange(MoriCpuLane* lane, uint32_t kind, uint64_t value);
  static void block_sync(MoriCpuLane* lane);
  static void run_lane(void* lane);
  static const MoriCpuOps kFiberOps, kDirectOps;

  static void check_guard(CpuJob& job, uint32_t block, const BlockMemory& shared);
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
  BlockMemory direct_shared_;
  uint32_t finished_blocks_ = 0;    ///< among live_, that may be used again
  std::vector<void*> stacks_;       ///< free for the next lane
  std::vector<void*> used_stacks_;  ///< of ended lanes, when they may not be used again in this launch
  size_t stack_count_ = 0;          ///< of stacks_, used_stacks_ and lanes
  std::vector<std::unique_ptr<Block>> live_, idle_;
};

}  // namespace mori::core
