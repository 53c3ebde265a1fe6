// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/backends/p2p/p2p_worker.hpp"

#include <algorithm>
#include <utility>

namespace mori::io::p2p {

namespace {

constexpr uint32_t kMostShift = 14, kLeastShift = 12;
constexpr uint64_t kWordBytes = 64;  ///< between the lanes' arrival words

uint64_t chunks_of(uint64_t bytes, uint32_t shift) { return (bytes + (uint64_t(1) << shift) - 1) >> shift; }

}  // namespace

CopyGrid plan_grid(std::span<const IoCopyPiece> pieces, uint64_t bytes, uint32_t blocks, uint32_t warps) {
  CopyGrid grid{.blocks = 1, .warps = 1, .shift = kMostShift, .chunks = 0};
  // Two rounds of all warps at least, so that the last ones do not work alone for long.
  while (grid.shift > kLeastShift && bytes >> grid.shift < 2ull * blocks * warps) --grid.shift;
  for (const IoCopyPiece& piece : pieces) grid.chunks += chunks_of(piece.bytes, grid.shift);
  grid.warps = uint32_t(std::clamp<uint64_t>(grid.chunks, 1, warps));
  grid.blocks = uint32_t(std::clamp<uint64_t>((grid.chunks + grid.warps - 1) / grid.warps, 1, blocks));
  return grid;
}

void share_out(std::span<const IoCopyPiece> pieces, const CopyGrid& grid, IoCopyShare* shares) {
  uint64_t passed = 0;  // chunks of the pieces in front of `piece`
  size_t piece = 0;
  for (uint32_t block = 0; block < grid.blocks; ++block) {
    const uint64_t first = grid.chunks * block / grid.blocks, last = grid.chunks * (block + 1) / grid.blocks;
    for (; piece < pieces.size(); ++piece) {
      const uint64_t own = chunks_of(pieces[piece].bytes, grid.shift);
      if (passed + own > first) break;
      passed += own;
    }
    shares[block] = {piece, first - passed, last - first};
  }
}

Worker::Worker(std::shared_ptr<core::Device> device, const P2pOptions& options)
    : device_(std::move(device)),
      blocks_(std::max(1u, options.blocks)),
      kernel_marks_(options.kernel_marks.value_or(device_->kind() == core::Kind::cuda)) {
  try {
    kernel_ = &device_->function("io_copy", "io_copy", sizeof(IoCopyArgs));
  } catch (const core::Error&) {  // built without this GPU's compiler: copy engines do it alone
    return;
  }
  if (kernel_marks_) arrivals_ = device_->allocate(kMaxLanes * kWordBytes);
}

Worker::~Worker() {
  try {
    for (const std::unique_ptr<Lane>& lane : lanes_) device_->free_host(lane->table);
    if (arrivals_ != 0) device_->free(arrivals_);
  } catch (...) {  // a device that failed cannot be tidied up; the process's end does it
  }
}

Lane* Worker::take() {
  if (free_.empty()) {
    if (lanes_.size() == kMaxLanes) return nullptr;
    const uint64_t word = arrivals_ == 0 ? 0 : arrivals_ + lanes_.size() * kWordBytes;
    lanes_.push_back(std::make_unique<Lane>(device_, blocks_, word));
    return lanes_.back().get();
  }
  Lane* const lane = free_.back();
  free_.pop_back();
  return lane;
}

void Worker::queue_pieces(Lane& lane, uint32_t count, uint64_t bytes, Counters& counters) {
  const std::span<const IoCopyPiece> pieces(lane.pieces(), count);
  if (kernel_ == nullptr) {
    for (const IoCopyPiece& piece : pieces) queue_copy(lane, piece.to, piece.from, piece.bytes, counters);
    return lane.queue.mark();
  }
  const uint32_t warps = std::max(1u, kBlockThreads / device_->properties().warp_size);
  const CopyGrid grid = plan_grid(pieces, bytes, blocks_, warps);
  IoCopyArgs args{.pieces = lane.table.device,
                  .shares = lane.table.device + kMaxPieces * sizeof(IoCopyPiece),
                  .count = count,
                  .arrivals = lane.arrivals,
                  .mark = 0,
                  .mark_value = 0,
                  .chunk_shift = grid.shift,
                  .inlined = {}};
  uint32_t tile = 0;
  if (count <= kIoCopyInline) {
    std::ranges::copy(pieces, args.inlined);
  } else {
    share_out(pieces, grid, lane.shares());
    tile = kIoCopyTile * uint32_t(sizeof(IoCopyPiece));
  }
  const auto word = kernel_marks_ ? lane.queue.marked_by_kernel() : std::nullopt;
  if (word) args.mark = word->address, args.mark_value = word->value;
  lane.queue.launch(*kernel_, {.blocks = grid.blocks, .warps = grid.warps, .shared_bytes = tile}, &args);
  ++counters.launches;
  if (!word) lane.queue.mark();
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
  IoCopyPiece* const table = lane.pieces();
  uint32_t count = 0;
  uint64_t bytes = 0;
  while (next_.segment < segments_.size() && count < kMaxPieces && bytes < kWindowBytes) {
    const Segment& segment = segments_[next_.segment];
    const uint64_t length = std::min(kWindowBytes - bytes, segment.bytes - next_.offset);
    table[count++] = piece(segment, next_.offset, length);
    bytes += length;
    next_.offset += length;
    if (next_.offset == segment.bytes) next_ = {next_.segment + 1, 0};
  }
  worker_.queue_pieces(lane, count, bytes, counters);
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
  lane.queue.mark();
  return bytes;
}

bool Carry::queue_window(Counters& counters) {
  Lane* lane = nullptr;
  try {
    lane = worker_.take();
  } catch (const core::Error& error) {
    stop(StatusCode::err_gpu_op, error.what(), true);
  }
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
    if (window.failed) lane->queue.mark();
    windows_.push_back(window);
  } catch (const core::Error&) {  // a GPU that refuses everything runs nothing either
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
