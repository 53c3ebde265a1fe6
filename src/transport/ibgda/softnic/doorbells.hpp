// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// What a poster tells the NIC about one queue, read strictly: the doorbell register (mlx5: with its record)
// and the register by which completions are given back. As on a NIC, entries are looked at when the register
// is rung, not before.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "src/transport/ibgda/types.hpp"

namespace mori::ibgda {

class Doorbells {
 public:
  /// `made`: the queue's constants. The counts begin where QueueOptions has them begin.
  void begin(const Queue& made, uint64_t first_position, uint64_t first_completion);

  /// Whether there is something to do: a register that was not handled yet, or entries that are rung.
  bool news(uint64_t executed) const { return end_ > executed || rung() != handled_; }
  /// The register as it is.
  uint64_t rung() const;
  /// Handles the register. Returns the position up to which the poster has rung; `wrong` says what is wrong
  /// with register or record. `executed`: the position up to which entries are done.
  uint64_t look(uint64_t executed, std::string& wrong);
  /// Reads what was given back of `written` completions. Empty, or what is wrong.
  std::string look_at_completions(uint64_t written);
  /// Completions that may be written before the ring is full.
  uint64_t room(uint64_t written) const { return made_.cq_depth - (written - taken_); }
  /// The entry at `position` is done, and will be overwritten. mlx5 registers repeat its first 8 bytes.
  void done(uint64_t position);
  /// mlx5: what the record names and no register was rung for. Empty, or a sentence.
  std::string unrung() const;

  /// Fault: the register counts as not handled yet.
  void forget() { handled_ = 0; }
  /// Fault: the doorbell before the last one comes once more. Whether it is known for what it is; true where
  /// the family has no way to tell (ionic) or none came before.
  bool stale(uint64_t executed);

 private:
  uint64_t end_of(uint64_t value, uint64_t executed, std::string& wrong) const;
  uint64_t end_of_mlx5(uint64_t value, uint64_t executed, std::string& wrong) const;
  /// mlx5: the position that a register's value names, near `executed`.
  static uint64_t named(uint64_t value, uint64_t executed) {
    const uint32_t control = __builtin_bswap32(uint32_t(value));
    return executed + uint64_t(int64_t(int16_t((control >> 8) - executed)));
  }

  Queue made_{};
  uint64_t handled_ = 0, before_ = 0;  ///< values of the register: the last, and the one before it
  uint64_t end_ = 0;
  uint64_t named_ = 0;  ///< mlx5: behind the entry that the last register named
  uint64_t taken_ = 0;  ///< completions given back
  std::vector<uint64_t> controls_;
};

}  // namespace mori::ibgda
