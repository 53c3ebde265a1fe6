// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/transport/ibgda/softnic/doorbells.hpp"

#include "src/transport/ibgda/providers/table.hpp"

namespace mori::ibgda {
namespace {

template <class T>
T read(uint64_t address) {
  return __atomic_load_n(reinterpret_cast<const T*>(address), __ATOMIC_ACQUIRE);
}

constexpr const char* kOtherQueue = "the register names another queue";
constexpr const char* kReserved = "reserved bits of the register are set";
constexpr const char* kBeyond = "the register's index is beyond the ring";
constexpr const char* kTooMuch = "a doorbell names more than the ring holds, or what is done";

}  // namespace

void Doorbells::begin(const Queue& made, uint64_t first_position, uint64_t first_completion) {
  made_ = made;
  end_ = named_ = first_position;
  taken_ = first_completion;
  handled_ = rung();
  if (made.family == Family::mlx5) controls_.assign(made.depth, 0);
}

uint64_t Doorbells::rung() const { return read<uint64_t>(made_.doorbell); }

uint64_t Doorbells::look(uint64_t executed, std::string& wrong) {
  const uint64_t value = rung();
  if (value == handled_) return end_;
  const uint64_t end = end_of(value, executed, wrong);
  if (wrong.empty() && end < end_) wrong = "a doorbell goes back";
  if (wrong.empty() && made_.family == Family::mlx5) {
    const uint64_t behind = named(value, executed) + 1;
    if (behind < named_) wrong = "the register goes back";
    named_ = behind;
  }
  if (handled_ != 0 && value != handled_) before_ = handled_;
  handled_ = value;
  if (wrong.empty()) end_ = end;
  return end;
}

/// The position that a value of the register stands for.
uint64_t Doorbells::end_of(uint64_t value, uint64_t executed, std::string& wrong) const {
  const uint64_t depth = made_.depth, index = value & 0xffffff;
  uint64_t distance = 0;
  switch (made_.family) {
    case Family::mlx5:
      return end_of_mlx5(value, executed, wrong);
    case Family::bnxt_re: {
      if ((value >> 32 & 0xfffff) != made_.qpn) {
        wrong = kOtherQueue;
      } else if (value >> 60 != 0) {
        wrong = "the register is rung with the type of another queue";
      } else if ((value & BnxtRe::kValid) == 0) {
        wrong = "the register is rung without its valid bit";
      } else if ((value & ~(0xfffffull << 32 | BnxtRe::kValid | BnxtRe::kEpoch | 0xffffff)) != 0) {
        wrong = kReserved;
      } else if (index >= depth) {
        wrong = kBeyond;
      }
      const uint64_t round = 2 * depth, at = index + ((value & BnxtRe::kEpoch) != 0 ? depth : 0);
      distance = (at + round - executed % round) % round;
      break;
    }
    default:
      if ((value >> 24 & 0xffffff) != made_.qpn) {
        wrong = kOtherQueue;
      } else if (value >> 48 != 0) {
        wrong = kReserved;
      } else if (index >= depth) {
        wrong = kBeyond;
      }
      distance = (index + depth - executed % depth) % depth;
  }
  if (wrong.empty() && distance > depth) wrong = kTooMuch;
  return executed + distance;
}

/// The record says how far, the register that there is something: it repeats the control segment of the
/// entry that was the last when it was rung. Other doorbells may have moved the record since.
uint64_t Doorbells::end_of_mlx5(uint64_t value, uint64_t executed, std::string& wrong) const {
  const uint32_t record = __builtin_bswap32(read<uint32_t>(made_.record + 4));  // behind the register
  const uint64_t distance = (record - executed) & 0xffff, end = executed + distance;
  const uint64_t at = named(value, executed);
  if (record >> 16 != 0) {
    wrong = "the record has more than 16 bits";
  } else if (distance > made_.depth) {
    wrong = kTooMuch;
  } else if (__builtin_bswap32(uint32_t(value >> 32)) >> 8 != made_.qpn) {
    wrong = kOtherQueue;
  } else if (int64_t(at - end) >= 0) {
    wrong = "the register is ahead of the record";
  } else {
    const bool pending = int64_t(at - executed) >= 0;
    const uint64_t slot = at % made_.depth;
    const uint64_t control =
        pending ? __atomic_load_n(reinterpret_cast<const uint64_t*>(made_.sq + slot * 64), __ATOMIC_RELAXED)
                : controls_[slot];
    if (control != value) wrong = "the register is not the control segment of the entry that it names";
  }
  return end;
}

void Doorbells::done(uint64_t position) {
  if (made_.family != Family::mlx5) return;
  const uint64_t slot = position % made_.depth;
  controls_[slot] = *reinterpret_cast<const uint64_t*>(made_.sq + slot * 64);
}

std::string Doorbells::unrung() const {
  if (made_.family != Family::mlx5) return "";
  const uint32_t record = __builtin_bswap32(read<uint32_t>(made_.record + 4));
  return (record & 0xffff) == (end_ & 0xffff) ? ""
                                              : "the record names entries for which no register was rung";
}

std::string Doorbells::look_at_completions(uint64_t written) {
  const uint64_t depth = made_.cq_depth;
  if (made_.cq_doorbell == 0 || depth == 1) return "";
  uint64_t fresh = 0;
  if (made_.family == Family::mlx5) {
    const uint32_t count = __builtin_bswap32(read<uint32_t>(made_.cq_doorbell));
    if (count >> 24 != 0) return "the completion record has more than 24 bits";
    fresh = (count - taken_) & 0xffffff;
  } else if (const uint64_t value = read<uint64_t>(made_.cq_doorbell); value != 0) {  // 0: never rung
    const uint64_t index = value & 0xffffff;
    if (made_.family == Family::bnxt_re) {
      if ((value >> 32 & 0xfffff) != made_.cqn) return "the completion register names another queue";
      if (value >> 60 != BnxtRe::kCqDoorbell >> 60) return "the completion register has the type of another";
      if ((value & BnxtRe::kValid) == 0) return "the completion register is rung without its valid bit";
      const uint64_t at = index + ((value & BnxtRe::kEpoch) != 0 ? depth : 0), round = 2 * depth;
      fresh = (at - taken_) & (round - 1);
    } else {
      if ((value >> 24) != made_.cqn) return "the completion register names another queue";
      fresh = (index - taken_) & (depth - 1);
    }
    if (index >= depth) return "the completion register's index is beyond the ring";
  }
  if (fresh > written - taken_) return "completions are given back that were not written";
  taken_ += fresh;
  return "";
}

bool Doorbells::stale(uint64_t executed) {
  if (before_ == 0 || made_.family == Family::ionic) return true;
  std::string wrong;
  const uint64_t end = end_of(before_, executed, wrong);
  if (made_.family == Family::bnxt_re)  // a whole ring behind looks like a whole ring ahead
    return !wrong.empty() || end <= end_ || end == executed + made_.depth;
  // an entry that is done, or one of a ring ago: in no case something that is not rung
  if (wrong.empty() && named(before_, executed) + 1 <= named_) return true;
  return !wrong.empty() && executed - named(before_, executed) > made_.depth;
}

}  // namespace mori::ibgda
