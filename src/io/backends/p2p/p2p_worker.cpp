// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/backends/p2p/p2p_worker.hpp"

#include <algorithm>
#include <utility>

namespace mori::io::p2p {

Worker::Worker(std::shared_ptr<core::Device> device, const P2pOptions& options)
    : device_(std::move(device)), blocks_(std::max(1u, options.blocks)) {
  try {
    kernel_ = &device_->function("io_copy", "io_copy", sizeof(IoCopyArgs));
  } catch (const core::Error&) {  // built without this GPU's compiler: copy engines do it alone
  }
}

Worker::~Worker() {
  for (const std::unique_ptr<Lane>& lane : lanes_) {
    try {
      device_->free_host(lane->table);
    } catch (...) {  // a device that failed cannot be tidied up; the process's end does it
    }
  }
}

Lane* Worker::take() {
  if (free_.empty()) {
    if (lanes_.size() == kMaxLanes) return nullptr;
    lanes_.push_back(std::make_unique<Lane>(device_));
    return lanes_.back().get();
  }
  Lane* const lane = free_.back();
  free_.pop_back();
  return lane;
}

void Worker::queue_pieces(Lane& lane, uint32_t count, Counters& counters) {
  const auto* pieces = static_cast<const IoCopyPiece*>(lane.table.host);
  if (kernel_ == nullptr) {
    for (uint32_t i = 0; i < count; ++i) {
      queue_copy(lane, pieces[i].to, pieces[i].from, pieces[i].bytes, counters);
    }
    return;
  }
  IoCopyArgs args{.pieces = lane.table.device, .count = count, .inlined = {}};
  if (count <= kIoCopyInline) std::copy_n(pieces, count, args.inlined);
  const uint32_t warps = std::max(1u, kWarpThreads / device_->properties().warp_size);
  // One warp in a block while there are blocks: pieces then spread over processors.
  const uint32_t blocks = std::min(count, blocks_);
  const uint32_t per_block = std::min(warps, (count + blocks - 1) / blocks);
  const uint32_t tile = count <= kIoCopyInline ? 0 : kIoCopyTile * uint32_t(sizeof(IoCopyPiece));
  lane.queue.launch(*kernel_, {.blocks = blocks, .warps = per_block, .shared_bytes = tile}, &args);
  ++counters.launches;
}

void Worker::queue_copy(Lane& lane, uint64_t to, uint64_t from, uint64_t bytes, Counters& counters) {
  lane.queue.copy(to, from, bytes);
  ++counters.copies;
}

Carry::Carry(JobPtr job, Worker& worker, uint64_t local, uint64_t remote, bool by_kernel)
    : job_(std::move(job)),
      worker_(worker),
      segments_(job_->segments()),
      local_(local),
      remote_(remote),
      write_(job_->op() == Op::write),
      by_kernel_(by_kernel) {}

IoCopyPiece Carry::piece(const Segment& segment, uint64_t offset, uint64_t bytes) const {
  const uint64_t here = local_ + segment.local + offset, there = remote_ + segment.remote + offset;
  return write_ ? IoCopyPiece{there, here, bytes} : IoCopyPiece{here, there, bytes};
}

uint64_t Carry::fill_pieces(Lane& lane, Counters& counters) {
  auto* const table = static_cast<IoCopyPiece*>(lane.table.host);
  uint32_t count = 0;
  uint64_t bytes = 0;
  while (next_.segment < segments_.size() && count < kMaxPieces && bytes < kWindowBytes) {
    const Segment& segment = segments_[next_.segment];
    const uint64_t length = std::min(kPieceBytes, segment.bytes - next_.offset);
    table[count++] = piece(segment, next_.offset, length);
    bytes += length;
    next_.offset += length;
    if (next_.offset == segment.bytes) next_ = {next_.segment + 1, 0};
  }
  worker_.queue_pieces(lane, count, counters);
  return bytes;
}

uint64_t Carry::fill_copies(Lane& lane, Counters& counters) {
  constexpr uint32_t kMaxCopies = 256;  // a call takes about 2 us: a window should not keep the lock long
  uint64_t bytes = 0;
  for (uint32_t i = 0; i < kMaxCopies && next_.segment < segments_.size() && bytes < kWindowBytes; ++i) {
    const Segment& segment = segments_[next_.segment];
    const uint64_t length = std::min(kWindowBytes - bytes, segment.bytes - next_.offset);
    const IoCopyPiece copy = piece(segment, next_.offset, length);
    worker_.queue_copy(lane, copy.to, copy.from, length, counters);
    bytes += length;
    next_.offset += length;
    if (next_.offset == segment.bytes) next_ = {next_.segment + 1, 0};
  }
  return bytes;
}

bool Carry::queue_window(Counters& counters) {
  Lane* const lane = worker_.take();
  if (lane == nullptr) return false;
  Window window{lane, next_, next_, 0, false};
  try {
    window.bytes = by_kernel_ ? fill_pieces(*lane, counters) : fill_copies(*lane, counters);
  } catch (const core::Error& error) {
    // A part may have been queued: it is waited for like any window, and counts as not done.
    stop(StatusCode::err_gpu_op, error.what(), true);
    window.failed = true;
  }
  window.end = next_;
  try {
    lane->queue.mark();
    windows_.push_back(window);
  } catch (const core::Error& error) {  // a GPU that refuses everything runs nothing either
    stop(StatusCode::err_gpu_op, error.what(), true);
    unfinished(window.begin, window.end, failed_);
    worker_.give(lane);
  }
  return !stopped_;
}

void Carry::stop(StatusCode code, std::string message, bool reroutable) {
  if (stopped_) return;
  stopped_ = true;
  outcome_.code = code;
  outcome_.message = std::move(message);
  outcome_.reroutable = reroutable;
}

bool Carry::advance(Counters& counters) {
  while (!windows_.empty()) {
    const Window window = windows_.front();
    bool done = !window.failed;
    try {
      if (!window.lane->queue.reached()) break;
    } catch (const core::Error& error) {
      stop(StatusCode::err_gpu_op, error.what(), true);
      done = false;
    }
    if (done) {
      counters.bytes += window.bytes;
      job_->progressed(window.bytes);
    } else {
      unfinished(window.begin, window.end, failed_);
    }
    windows_.pop_front();
    worker_.give(window.lane);
  }
  if (!stopped_ && next_.segment < segments_.size() && job_->stopping()) {
    stop(StatusCode::err_cancelled, "stopped before all of it was queued", false);
  }
  while (!stopped_ && next_.segment < segments_.size() && windows_.size() < kWindowsInFlight) {
    if (!queue_window(counters)) break;
  }
  return windows_.empty() && (stopped_ || next_.segment == segments_.size());
}

Outcome Carry::outcome() {
  unfinished(next_, {segments_.size(), 0}, failed_);
  outcome_.unfinished = std::move(failed_);
  if (outcome_.unfinished.empty()) outcome_ = {};  // told to stop, but everything had arrived
  return std::move(outcome_);
}

void Carry::unfinished(Place begin, Place end, std::vector<Segment>& out) const {
  for (Place at = begin; at.segment < end.segment || (at.segment == end.segment && at.offset < end.offset);) {
    const Segment& segment = segments_[at.segment];
    const uint64_t until = at.segment == end.segment ? end.offset : segment.bytes;
    out.push_back({segment.local + at.offset, segment.remote + at.offset, until - at.offset});
    at = {at.segment + 1, 0};
  }
}

}  // namespace mori::io::p2p
