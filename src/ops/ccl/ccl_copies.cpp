// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/ops/ccl/ccl_copies.hpp"

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>

namespace mori::ccl {
namespace {

constexpr uint32_t kReady = 0, kDone = 1;  // meetings of a step
constexpr uint32_t kGone = 0x80000000u;    // the word of a member that has given up
constexpr uint64_t kGrain = 256;
constexpr uint32_t kLookMs = 2;

uint32_t* host_word(const core::HostMemory& memory, size_t field) {
  return reinterpret_cast<uint32_t*>(static_cast<char*>(memory.host) + field);
}
uint32_t load(const core::HostMemory& memory, size_t field) {
  return __atomic_load_n(host_word(memory, field), __ATOMIC_ACQUIRE);
}

}  // namespace

Copies::Copies(std::shared_ptr<core::Context> context, uint64_t region, uint64_t staging_bytes,
               std::vector<uint32_t> ranks, uint32_t index)
    : context_(std::move(context)), staging_bytes_(staging_bytes), ranks_(std::move(ranks)), index_(index) {
  core::Device& device = context_->device();
  const World& world = context_->world();
  std::vector<uint64_t> bases(world.world_size);
  device.copy(reinterpret_cast<uint64_t>(bases.data()), world.bases, bases.size() * sizeof(uint64_t));
  for (const uint32_t rank : ranks_) regions_.push_back(bases.at(rank) + region);
  steps_ = core::StepStream::open(context_->shared_device());
  progress_ = device.allocate_host(sizeof(Progress));
  if (device.kind() != core::Kind::cpu) watcher_ = std::thread([this] { watch(); });
}

Copies::~Copies() {
  {
    const std::lock_guard<std::mutex> guard(mutex_);
    quit_ = true;
  }
  quitting_.notify_all();
  if (watcher_.joinable()) watcher_.join();
  steps_.reset();
  try {
    context_->device().free_host(progress_);
  } catch (...) {  // a device that failed cannot be tidied up; the process's end does it
  }
}

uint64_t Copies::flag(uint32_t at, uint32_t meeting, uint32_t of) const {
  return regions_[at] + offsetof(CopiesRegion, flags) + (meeting * kCclMembers + of) * sizeof(uint32_t);
}

void Copies::run(CclOp op, uint64_t source, uint64_t dest, uint64_t count, uint32_t root, uint32_t digest,
                 uint64_t stream) {
  const uint64_t word = word_of(digest);
  const bool watches = !watcher_.joinable();
  if (watches) since_ = std::chrono::steady_clock::now();
  steps_->begin(stream);
  queue(op, source, dest, count, root, digest, word);
  steps_->submit();
  while (!steps_->wait_some(kLookMs)) look();
}

/// Where the digest lies that signals are copied from. The host writes it once and not the stream every time,
/// so that what is queued behind a failure cannot write it again.
uint64_t Copies::word_of(uint32_t digest) {
  const std::lock_guard<std::mutex> guard(mutex_);
  if (failed_) throw core::ConfigError("a zero_cu call of this communicator has failed; make a new one");
  const auto found = std::find(words_.begin(), words_.end(), digest);
  const uint64_t at =
      regions_[index_] + offsetof(CopiesRegion, words) + uint64_t(found - words_.begin()) * sizeof(uint32_t);
  if (found != words_.end()) return at;
  if (words_.size() == kCopiesWords) {
    throw core::CapacityError("more than " + std::to_string(kCopiesWords) +
                              " different zero_cu calls on one communicator");
  }
  steps_->poke(at, digest);
  words_.push_back(digest);
  return at;
}

void Copies::queue(CclOp op, uint64_t source, uint64_t dest, uint64_t count, uint32_t root, uint32_t digest,
                   uint64_t word) {
  const bool at_root = index_ == root;
  const bool parted = op == CclOp::all_to_all || op == CclOp::scatter;  // another part for each member
  const bool all = op == CclOp::all_to_all || op == CclOp::all_gather;
  const bool from_root = op == CclOp::broadcast || op == CclOp::scatter;
  const bool puts = all || at_root == from_root, takes = all || at_root != from_root;
  const uint64_t room = staging_bytes_ / (parted ? members() : 1) / kGrain * kGrain;

  // What stays here.
  const uint64_t own_from = source + (parted ? index_ * count : 0);
  const uint64_t own_to = dest + (from_root ? 0 : index_ * count);
  const bool keeps = all || (at_root && op != CclOp::broadcast);
  if (keeps && own_from != own_to && count != 0) steps_->copy(own_to, own_from, count);

  steps_->write(progress(offsetof(Progress, value)), digest);
  uint64_t at = 0;
  do {  // nothing to move is a call too
    const uint64_t here = std::min(room, count - at);
    for (uint32_t i = 1; puts && here != 0 && i < (parted ? members() : 2); ++i) {
      const uint32_t to = behind(i);
      steps_->copy(staging(index_) + (parted ? to * room : 0), source + (parted ? to * count : 0) + at, here);
    }
    meet(kReady, digest, word);
    for (uint32_t i = 1; takes && here != 0 && i < members(); ++i) {
      const uint32_t from = behind(i);
      if (from_root && from != root) continue;
      steps_->copy(dest + (from_root ? 0 : from * count) + at, staging(from) + (parted ? index_ * room : 0),
                   here);
    }
    meet(kDone, digest, word);
    at += here;
  } while (at < count);
}

/// Nobody raises a flag of a meeting again before I have put it back: in between is the other meeting, which
/// needs my signal.
void Copies::meet(uint32_t meeting, uint32_t digest, uint64_t word) {
  for (uint32_t i = 1; i < members(); ++i) {
    steps_->signal(flag(behind(i), meeting, index_), word);
  }
  for (uint32_t i = 1; i < members(); ++i) {
    const uint32_t of = behind(i);
    steps_->write(progress(offsetof(Progress, waiting)), 1 + meeting * kCclMembers + of);
    steps_->wait(flag(index_, meeting, of), digest);
    steps_->write(flag(index_, meeting, of), 0);
    steps_->write(progress(offsetof(Progress, moved)), 1);
  }
  steps_->write(progress(offsetof(Progress, waiting)), 0);
}

/// One look at the wait that is next; ends it if it takes too long or cannot end. Callers: one thread.
void Copies::look() {
  using Clock = std::chrono::steady_clock;
  if (__atomic_exchange_n(host_word(progress_, offsetof(Progress, moved)), 0u, __ATOMIC_ACQ_REL) != 0) {
    since_ = Clock::now();
  }
  const uint32_t waiting = load(progress_, offsetof(Progress, waiting));
  if (waiting == 0) {
    since_ = Clock::now();
    return;
  }
  const uint32_t meeting = (waiting - 1) / kCclMembers, of = (waiting - 1) % kCclMembers;
  const uint32_t value = load(progress_, offsetof(Progress, value));
  if (!failed_) {
    const ErrorWord word = context_->error();
    const bool lost = word.abort != 0 || (word.state == 2 && word.wait != 0);
    const uint64_t limit = context_->timeout_ns();
    const bool late = limit != 0 && Clock::now() - since_ > std::chrono::nanoseconds(limit);
    const bool cheap = context_->device().kind() == core::Kind::cpu;
    if (!lost && !late && !cheap) return;
    const uint32_t seen = steps_->peek(flag(index_, meeting, of));
    const bool same = load(progress_, offsetof(Progress, waiting)) == waiting &&
                      load(progress_, offsetof(Progress, value)) == value &&
                      load(progress_, offsetof(Progress, moved)) == 0;
    if (!same) return;  // it went on meanwhile
    if (!lost) {
      const bool other = seen != 0 && seen != value && seen != kGone;
      if (other) {
        context_->record(Wait::none, Refusal::mismatch, ranks_[of], value, seen);
      } else if (late || seen == kGone) {
        context_->record(Wait::copies, Refusal::none, ranks_[of], value, seen);
      } else {
        return;
      }
    }
    give_up();
  }
  steps_->poke(flag(index_, meeting, of), value);
}

/// What the stream still signals must not pass for good. Then its waits may be ended.
void Copies::give_up() {
  const std::lock_guard<std::mutex> guard(mutex_);
  failed_ = true;
  for (size_t i = 0; i < words_.size(); ++i) {
    steps_->poke(regions_[index_] + offsetof(CopiesRegion, words) + i * sizeof(uint32_t), kGone);
  }
}

void Copies::watch() {
  for (;;) {
    {
      std::unique_lock<std::mutex> guard(mutex_);
      if (quitting_.wait_for(guard, std::chrono::milliseconds(kLookMs), [this] { return quit_; })) return;
    }
    try {
      look();
    } catch (...) {  // the device has failed; whoever calls next is told
      return;
    }
  }
}

}  // namespace mori::ccl
