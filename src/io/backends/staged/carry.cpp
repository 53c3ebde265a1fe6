// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/backends/staged/carry.hpp"

#include <algorithm>
#include <utility>

#include "src/core/errors.hpp"

namespace mori::io::staged {
namespace {

/// Appends a segment to a list, to the last one if it follows it on both sides.
void append(std::vector<Segment>& list, const Segment& next) {
  if (!list.empty()) {
    Segment& last = list.back();
    if (last.local + last.bytes == next.local && last.remote + last.bytes == next.remote) {
      last.bytes += next.bytes;
      return;
    }
  }
  list.push_back(next);
}

}  // namespace

InnerJob::InnerJob(Carry& carry, const Region& chunk, std::vector<Segment> segments)
    : outer_(carry.job),
      route_(carry.route),
      stopped_(carry.stopped_),
      wake_(carry.wake_),
      chunk_(chunk),
      segments_(std::move(segments)) {
  for (const Segment& s : segments_) bytes_ += s.bytes;
}

void InnerJob::finish(Outcome outcome) {
  outcome_ = std::move(outcome);
  const std::function<void()> wake = wake_;  // this may be gone once it is seen as ended
  ended_.store(true, std::memory_order_release);
  wake();
}

Carry::Carry(JobPtr owned, Backend& inner, Staging& staging, std::function<void()> wake)
    : job(std::move(owned)),
      route(static_cast<StagedRoute&>(job->route()).shared_from_this()),
      peer(&job->peer()),
      inner_(inner),
      staging_(staging),
      wake_(std::move(wake)) {}

Carry::~Carry() = default;

void Carry::stop(StatusCode code, std::string message, bool reroutable) {
  const std::lock_guard lock(mutex_);
  stop_locked(code, std::move(message), reroutable);
}

void Carry::stop_locked(StatusCode code, std::string message, bool reroutable) {
  if (stopped_->exchange(true)) return;
  outcome_.code = code;
  outcome_.message = std::move(message);
  outcome_.reroutable = reroutable;
}

std::vector<std::shared_ptr<InnerJob>> Carry::inner_jobs() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<InnerJob>> out;
  for (const auto& slot : slots_) {
    if (slot->stage == Stage::carrying) out.push_back(slot->inner);
  }
  return out;
}

bool Carry::advance() {
  const std::lock_guard lock(mutex_);
  if (ended_) return false;
  if (job->stopping()) stop_locked(StatusCode::err_cancelled, "stopped before all of it was carried", false);
  bool wants_looks = false;
  for (;;) {
    bool moved = false;
    for (size_t i = 0; i < slots_.size();) {
      if (advance(*slots_[i])) {
        slots_.erase(slots_.begin() + ptrdiff_t(i));
        moved = true;
      } else {
        ++i;
      }
    }
    while (!*stopped_ && segment_ < job->segments().size() && slots_.size() < kChunks) {
      if (!start_slot()) {
        wants_looks = !*stopped_;
        break;
      }
      moved = true;
    }
    if (!moved) break;
  }
  ended_ = slots_.empty() && (*stopped_ || segment_ == job->segments().size());
  for (const auto& slot : slots_) wants_looks |= slot->stage != Stage::carrying;
  wants_looks_.store(wants_looks, std::memory_order_relaxed);
  return ended_;
}

bool Carry::start_slot() {
  auto slot = std::make_unique<Slot>();
  const auto segments = job->segments();
  try {
    slot->chunk = staging_.take(job->local());
    if (!slot->chunk) return false;
    // A job of some chunks' size is cut finer, so that copying and carrying overlap.
    const uint64_t most = std::clamp<uint64_t>((job->bytes() / kChunks + 4095) & ~uint64_t(4095), 256 << 10,
                                               kStagingChunkBytes);
    while (segment_ < segments.size() && slot->bytes < most && slot->load.size() < p2p::kMaxPieces) {
      const Segment& from = segments[segment_];
      const uint64_t bytes = std::min(from.bytes - offset_, most - slot->bytes);
      slot->load.push_back({from.local + offset_, from.remote + offset_, bytes});
      slot->copies.push_back({slot->bytes, from.local + offset_, bytes});
      slot->bytes += bytes;
      offset_ += bytes;
      if (offset_ == from.bytes) ++segment_, offset_ = 0;
    }
    slots_.push_back(std::move(slot));
    Slot& started = *slots_.back();
    if (job->op() == Op::write) {
      started.chunk.fetch(started.copies);
    } else {
      carry(started);
    }
  } catch (const core::Error& error) {
    stop_locked(StatusCode::err_gpu_op, error.what(), false);
    if (slot == nullptr) {
      give_up(*slots_.back());
      slots_.pop_back();
    }
    return false;
  }
  return true;
}

void Carry::carry(Slot& slot) {
  std::vector<Segment> list;
  for (size_t i = 0; i < slot.load.size(); ++i) {
    append(list, {slot.copies[i].local, slot.load[i].remote, slot.load[i].bytes});
  }
  const Region chunk{.id = 0,
                     .key = {},
                     .location = Location::cpu,
                     .device = -1,
                     .address = reinterpret_cast<uint64_t>(slot.chunk.data()),
                     .bytes = kStagingChunkBytes,
                     .fd = -1,
                     .path = {}};
  slot.stage = Stage::carrying;
  slot.inner = std::make_shared<InnerJob>(*this, chunk, std::move(list));
  inner_.submit(slot.inner);
}

bool Carry::advance(Slot& slot) {
  try {
    if (slot.stage == Stage::fetching) {
      if (!slot.chunk.ready()) return false;
      if (*stopped_) return give_up(slot), true;
      carry(slot);
    }
    if (slot.stage == Stage::carrying) {
      if (slot.inner->ended() == nullptr) return false;
      if (carried(slot)) return true;
      slot.stage = Stage::storing;
      slot.chunk.store(slot.copies);
    }
    if (!slot.chunk.ready()) return false;
  } catch (const core::Error& error) {
    stop_locked(StatusCode::err_gpu_op, error.what(), false);
    return give_up(slot), true;
  }
  job->progressed(slot.bytes);
  return true;
}

/// The inner job has ended. Whether the slot is over with it.
bool Carry::carried(Slot& slot) {
  Outcome outcome = std::move(*slot.inner->ended());
  if (outcome.code != StatusCode::success) {
    stop_locked(outcome.code, std::move(outcome.message), outcome.reroutable);
    if (job->op() == Op::read) return give_up(slot), true;
    uint64_t left = 0;
    for (Segment u : outcome.unfinished) {
      left += u.bytes;
      auto at = std::upper_bound(slot.copies.begin(), slot.copies.end(), u.local,
                                 [](uint64_t local, const Segment& s) { return local < s.local; });
      while (u.bytes > 0) {
        const size_t i = size_t(at - slot.copies.begin()) - 1;
        const uint64_t skip = u.local - slot.copies[i].local;
        const uint64_t bytes = std::min(u.bytes, slot.copies[i].bytes - skip);
        outcome_.unfinished.push_back({slot.load[i].local + skip, slot.load[i].remote + skip, bytes});
        u.local += bytes;
        u.bytes -= bytes;
        ++at;
      }
    }
    job->progressed(slot.bytes - left);
    return true;
  }
  if (job->op() == Op::read) {
    if (!*stopped_) return false;
    return give_up(slot), true;
  }
  job->progressed(slot.bytes);
  return true;
}

void Carry::give_up(const Slot& slot) {
  outcome_.unfinished.insert(outcome_.unfinished.end(), slot.load.begin(), slot.load.end());
}

Outcome Carry::outcome() {
  const std::lock_guard lock(mutex_);
  const auto segments = job->segments();
  for (; segment_ < segments.size(); ++segment_, offset_ = 0) {
    const Segment& s = segments[segment_];
    outcome_.unfinished.push_back({s.local + offset_, s.remote + offset_, s.bytes - offset_});
  }
  if (outcome_.unfinished.empty()) return {};  // told to stop, but everything had arrived
  return std::move(outcome_);
}

}  // namespace mori::io::staged
