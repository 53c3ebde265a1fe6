// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Lanes as fibers. All state here belongs to one thread; between threads there is only CpuJob.
//
// A stopped lane is in exactly one place: the ready queue, its warp's rendezvous, its block's rendezvous, or
// done. Switches go straight from lane to lane; allocation and everything else that may fail happens at home,
// on the thread's own stack, because an exception must not cross a kernel's frames.
#include "src/core/runtime/cpu_scheduler.hpp"

#include <string>

#include "src/core/errors.hpp"

namespace mori::core {
namespace {

constexpr size_t kIdleStacks = 16 << 10, kIdleBlocks = 256;  // kept for the next launch
constexpr uint32_t kDirectSpins = 32;                        // about 1 us
constexpr uint32_t kBlockSync = 0x200, kReturned = 0x201;    // besides the kinds of warp_exchange

std::string kind_words(uint32_t kind) {
  switch (kind) {
    case kMoriCpuSyncWarp:
      return "sync_warp()";
    case kMoriCpuBallot:
      return "ballot()/any()";
    case kBlockSync:
      return "sync_block()";
    case kReturned:
      return "the end of the kernel";
  }
  return "shuffle() of " + std::to_string(kind - kMoriCpuShuffle) + " bytes";
}

std::string where(const MoriCpuLane& lane) {
  return "block " + std::to_string(lane.block) + " warp " + std::to_string(lane.warp) + " lane " +
         std::to_string(lane.lane);
}

}  // namespace

struct LaneScheduler::Lane {
  MoriCpuLane abi;  // first: MoriCpuOps hands back its address
  LaneScheduler* scheduler;
  Block* block;
  Lane* next;
  void* stack;  // null before the lane first runs and after it ended
  bool at_warp, at_block;
  Fiber fiber;
};

struct LaneScheduler::Warp {
  uint32_t arrived = 0, at_block = 0, returned = 0;  // lanes in a warp collective, in sync_block, gone
  uint32_t kind = 0;                                 // of the collective the arrived lanes are in
  uint64_t generation = 0;
  Lane* arrived_lane = nullptr;  // one of each, for the error message
  Lane* at_block_lane = nullptr;
  Lane* returned_lane = nullptr;
  // Two sets: lanes of this rendezvous may still read theirs while the first lane is in the next one.
  uint64_t values[2][64];
};

struct LaneScheduler::Block {
  std::unique_ptr<Lane[]> lanes;
  std::unique_ptr<Warp[]> warps;
  uint32_t lane_count = 0, warp_count = 0;  // as allocated
  uint32_t at_sync = 0, returned = 0;
  uint64_t generation = 0;
  Lane* at_sync_lane = nullptr;
  Lane* returned_lane = nullptr;
  char sync[2];  // addresses for ThreadSanitizer, by generation
  BlockMemory shared;
};

const MoriCpuOps LaneScheduler::kFiberOps{yield, warp_exchange, block_sync};
// A lane that is alone on its thread meets nobody: the prelude makes no collective call in it.
const MoriCpuOps LaneScheduler::kDirectOps{
    +[](MoriCpuLane* lane) { reinterpret_cast<Lane*>(lane)->scheduler->back_off_.give_way(); },
    +[](MoriCpuLane*, uint32_t, uint64_t) -> const uint64_t* { return nullptr; }, +[](MoriCpuLane*) {}};

LaneScheduler::LaneScheduler() = default;
LaneScheduler::~LaneScheduler() {
  for (void* stack : stacks_) free_fiber_stack(stack);
}

void LaneScheduler::push(Lane& lane) {
  lane.next = nullptr;
  (tail_ != nullptr ? tail_->next : head_) = &lane;
  tail_ = &lane;
  ++ready_;
}

LaneScheduler::Lane* LaneScheduler::pop() {
  Lane* lane = head_;
  if (lane == nullptr) return nullptr;
  head_ = lane->next;
  if (head_ == nullptr) tail_ = nullptr;
  --ready_;
  return lane;
}

void LaneScheduler::run(CpuJob& job) noexcept {
  job_ = &job;
  slot_ = job.current();
  try {
    if (job.direct) {
      run_direct(job);
    } else {
      run_fibers(job);
    }
  } catch (...) {
    job.abandon(std::current_exception());
  }
  if (!job.direct) give_back_blocks();
  *slot_ = nullptr;
  job_ = nullptr;
}

void LaneScheduler::run_direct(CpuJob& job) {
  Lane lane;
  lane.scheduler = this;
  for (uint32_t index; job.take_block(index);) {
    lane.abi = {index,      job.blocks, 0, 1, 0, kDirectSpins, direct_shared_.prepare(job.shared_bytes),
                &kDirectOps};
    *slot_ = &lane.abi;
    job.run(job.args);
    check_guard(job, index, direct_shared_);
  }
}

void LaneScheduler::check_guard(CpuJob& job, uint32_t block, const BlockMemory& shared) {
  if (shared.guard_intact()) return;
  job.abandon(std::make_exception_ptr(Error("kernel " + std::string(job.name) + ": block " +
                                            std::to_string(block) + " wrote beyond its " +
                                            std::to_string(job.shared_bytes) + " bytes of shared memory")));
}

// ---- at home: the thread's own stack ----------------------------------------------------------------

void LaneScheduler::run_fibers(CpuJob& job) {
  home_.adopt_thread();
  while (!job.abandoned.load(std::memory_order_relaxed)) {
    if (want_block_ || head_ == nullptr) {
      want_block_ = false;
      uint32_t index;
      if (job.take_block(index)) {
        start_block(index);
      } else if (head_ == nullptr) {
        break;
      }
    }
    resume(*pop());
  }
}

void LaneScheduler::start_block(uint32_t index) {
  const CpuJob& job = *job_;
  std::unique_ptr<Block> block;
  if (finished_blocks_ != 0) {
    for (size_t i = 0; i < live_.size() && !block; ++i) {
      if (live_[i]->returned != job.lanes()) continue;
      block = std::move(live_[i]);
      live_[i] = std::move(live_.back());
      live_.pop_back();
      --finished_blocks_;
    }
  } else if (!idle_.empty()) {
    block = std::move(idle_.back());
    idle_.pop_back();
  }
  if (!block) block = std::make_unique<Block>();
  if (block->lane_count != job.lanes() || block->warp_count != job.warps) {
    block->lane_count = block->warp_count = 0;
    block->lanes = std::make_unique<Lane[]>(job.lanes());
    block->warps = std::make_unique<Warp[]>(job.warps);
    block->lane_count = job.lanes();
    block->warp_count = job.warps;
  }
  unsigned char* const shared = block->shared.prepare(job.shared_bytes);
  block->at_sync = block->returned = 0;
  live_.push_back(std::move(block));
  Block& b = *live_.back();
  for (uint32_t w = 0; w < job.warps; ++w) b.warps[w].arrived = b.warps[w].at_block = b.warps[w].returned = 0;
  for (uint32_t i = 0; i < job.lanes(); ++i) {
    Lane& lane = b.lanes[i];
    lane.abi = {index, job.blocks, i / job.warp_size, job.warps, i % job.warp_size, 0, shared, &kFiberOps};
    lane.scheduler = this;
    lane.block = &b;
    lane.stack = nullptr;
    lane.at_warp = lane.at_block = false;
    push(lane);
  }
  fruitless_ = 0;
}

void LaneScheduler::resume(Lane& lane) {
  if (lane.stack == nullptr) {
    if (stacks_.empty()) {
      stacks_.reserve(stack_count_ + 1);  // here, so that a lane at its end need not allocate
      used_stacks_.reserve(stack_count_ + 1);
      stacks_.push_back(allocate_fiber_stack());
      ++stack_count_;
    }
    lane.stack = stacks_.back();
    stacks_.pop_back();
    lane.fiber.prepare(lane.stack, run_lane, &lane);
  }
  *slot_ = &lane.abi;
  Fiber::switch_to(home_, lane.fiber);
}

void LaneScheduler::give_back_blocks() {
  const bool abandoned = job_->abandoned.load(std::memory_order_relaxed);
  for (std::unique_ptr<Block>& block : live_) {
    for (uint32_t i = 0; i < job_->lanes(); ++i) {
      Lane& lane = block->lanes[i];
      lane.fiber.retire();
      if (lane.stack == nullptr) continue;  // never ran, or ended
      free_fiber_stack(lane.stack);         // abandoned in the middle of its frames
      --stack_count_;
    }
    if (!abandoned && idle_.size() < kIdleBlocks) idle_.push_back(std::move(block));
  }
  live_.clear();
  stacks_.insert(stacks_.end(), used_stacks_.begin(), used_stacks_.end());
  used_stacks_.clear();
  for (; stacks_.size() > kIdleStacks; --stack_count_) {
    free_fiber_stack(stacks_.back());
    stacks_.pop_back();
  }
  head_ = tail_ = nullptr;
  ready_ = fruitless_ = finished_blocks_ = 0;
  want_block_ = false;
}

// ---- on a lane's stack ------------------------------------------------------------------------------

void LaneScheduler::run_lane(void* argument) {
  Lane& lane = *static_cast<Lane*>(argument);
  LaneScheduler& self = *lane.scheduler;
  CpuJob& job = *self.job_;
  job.run(job.args);
  self.check_arrival(lane, kReturned);
  Block& block = *lane.block;
  Warp& warp = block.warps[lane.abi.warp];
  ++warp.returned;
  warp.returned_lane = block.returned_lane = &lane;
  if (++block.returned == job.lanes()) {
    if (!kTsanFibers) ++self.finished_blocks_;
    check_guard(job, lane.abi.block, block.shared);
  }
  // ThreadSanitizer would take the next lane's frames for a race with this one's.
  (kTsanFibers ? self.used_stacks_ : self.stacks_).push_back(lane.stack);
  lane.stack = nullptr;
  self.leave_for_good(lane);
}

/// The next lane that has a stack already; a fresh one is left for home to prepare.
LaneScheduler::Lane* LaneScheduler::next_prepared() {
  if (head_ == nullptr || head_->stack == nullptr) return nullptr;
  Lane* next = pop();
  *slot_ = &next->abi;
  return next;
}

void LaneScheduler::leave(Lane& lane) {
  Lane* next = next_prepared();
  Fiber::switch_to(lane.fiber, next != nullptr ? next->fiber : home_);
  if (job_->abandoned.load(std::memory_order_relaxed)) Fiber::switch_to(lane.fiber, home_);  // for ever
}

void LaneScheduler::leave_for_good(Lane& lane) {
  Lane* next = job_->abandoned.load(std::memory_order_relaxed) ? nullptr : next_prepared();
  Fiber::finish(lane.fiber, next != nullptr ? next->fiber : home_);
}

void LaneScheduler::diverged(Lane& lane, uint32_t kind, Lane& other, uint32_t other_kind) {
  job_->abandon(std::make_exception_ptr(
      Error("divergence in kernel " + std::string(job_->name) + ": " + where(lane.abi) + " is at " +
            kind_words(kind) + " while " + where(other.abi) + " is at " + kind_words(other_kind) +
            "; all lanes of a warp (of a block, for sync_block) must make the same calls")));
  leave_for_good(lane);
}

/// Refuses a lane that comes to `kind` while others of its warp or block are, or have gone, elsewhere.
void LaneScheduler::check_arrival(Lane& lane, uint32_t kind) {
  Block& block = *lane.block;
  Warp& warp = block.warps[lane.abi.warp];
  if (warp.arrived != 0 && warp.kind != kind) diverged(lane, kind, *warp.arrived_lane, warp.kind);
  if (kind == kReturned && block.at_sync != 0) diverged(lane, kind, *block.at_sync_lane, kBlockSync);
  if (kind == kReturned) return;
  if (kind == kBlockSync && block.returned != 0) diverged(lane, kind, *block.returned_lane, kReturned);
  if (kind == kBlockSync) return;
  if (warp.at_block != 0) diverged(lane, kind, *warp.at_block_lane, kBlockSync);
  if (warp.returned != 0) diverged(lane, kind, *warp.returned_lane, kReturned);
}

void LaneScheduler::yield(MoriCpuLane* abi) {
  Lane& lane = *reinterpret_cast<Lane*>(abi);
  LaneScheduler& self = *lane.scheduler;
  if (self.job_->has_blocks()) {  // the awaited one may be among them
    self.want_block_ = true;
    self.push(lane);
    Fiber::switch_to(lane.fiber, self.home_);
    return;
  }
  if (++self.fruitless_ > self.ready_) {  // all lanes of this thread wait
    self.fruitless_ = 0;
    self.back_off_.give_way();
  }
  if (self.job_->abandoned.load(std::memory_order_relaxed)) self.leave_for_good(lane);
  if (self.head_ == nullptr) return;
  self.push(lane);
  self.leave(lane);
}

const uint64_t* LaneScheduler::warp_exchange(MoriCpuLane* abi, uint32_t kind, uint64_t value) {
  Lane& lane = *reinterpret_cast<Lane*>(abi);
  LaneScheduler& self = *lane.scheduler;
  self.check_arrival(lane, kind);
  const uint32_t warp_size = self.job_->warp_size;
  Warp& warp = lane.block->warps[abi->warp];
  uint64_t* const values = warp.values[warp.generation & 1];
  values[abi->lane] = value;
  // As on a GPU, shuffle and ballot carry their values and order no other memory.
  if (kind == kMoriCpuSyncWarp) tsan_release(values);
  warp.kind = kind;
  warp.arrived_lane = &lane;
  if (++warp.arrived == warp_size) {
    warp.arrived = 0;
    ++warp.generation;
    Lane* lanes = &lane.block->lanes[size_t(abi->warp) * warp_size];
    for (uint32_t i = 0; i < warp_size; ++i) {
      if (lanes[i].at_warp) self.push(lanes[i]);
      lanes[i].at_warp = false;
    }
  } else {
    lane.at_warp = true;
    self.leave(lane);
  }
  if (kind == kMoriCpuSyncWarp) tsan_acquire(values);
  return values;
}

void LaneScheduler::block_sync(MoriCpuLane* abi) {
  Lane& lane = *reinterpret_cast<Lane*>(abi);
  LaneScheduler& self = *lane.scheduler;
  self.check_arrival(lane, kBlockSync);
  Block& block = *lane.block;
  const uint32_t lanes = self.job_->lanes();
  char* const sync = &block.sync[block.generation & 1];
  tsan_release(sync);
  ++block.warps[abi->warp].at_block;
  block.warps[abi->warp].at_block_lane = block.at_sync_lane = &lane;
  if (++block.at_sync == lanes) {
    block.at_sync = 0;
    ++block.generation;
    for (uint32_t w = 0; w < abi->warps; ++w) block.warps[w].at_block = 0;
    for (uint32_t i = 0; i < lanes; ++i) {
      if (block.lanes[i].at_block) self.push(block.lanes[i]);
      block.lanes[i].at_block = false;
    }
  } else {
    lane.at_block = true;
    self.leave(lane);
  }
  tsan_acquire(sync);
}

}  // namespace mori::core
