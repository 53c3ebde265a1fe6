// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Copies, and words of 4 bytes that order them, done one behind the other with no kernel: on a GPU by a
// stream's copy engines and stream memory operations, on the CPU by a thread that copies.
//
// A wait has no deadline: a stream cannot have one. Whoever queues waits must watch them, and end one that
// takes too long by poke(). peek() and poke() act at once, past everything that is queued; from any thread.
#pragma once
#include <cstdint>
#include <memory>

#include "src/core/runtime/device.hpp"

namespace mori::core {

class StepStream {
 public:
  /// Throws ConfigError if the driver has no stream memory operations.
  static std::unique_ptr<StepStream> open(std::shared_ptr<Device> device);
  virtual ~StepStream() = default;

  /// What follows goes onto this stream. On the CPU the number means nothing.
  virtual void begin(uint64_t stream) = 0;
  virtual void copy(uint64_t to, uint64_t from, size_t bytes) = 0;
  /// A word of this device's memory, or of host memory that it reaches. Orders: behind what came before.
  virtual void write(uint64_t to, uint32_t value) = 0;
  /// *to = *from, where `to` may be a peer's: by a copy, as some drivers write to no peer. Orders: all that
  /// came before, system-wide, before the word.
  virtual void signal(uint64_t to, uint64_t from) = 0;
  /// Until *address == value. Orders: before what follows.
  virtual void wait(uint64_t address, uint32_t value) = 0;
  /// The steps since begin() may run. Not needed on a GPU.
  virtual void submit() {}
  /// Whether all have ended, within so many milliseconds; on a GPU true at once: they are queued.
  virtual bool wait_some(uint32_t) { return true; }

  virtual uint32_t peek(uint64_t address) = 0;
  virtual void poke(uint64_t address, uint32_t value) = 0;
};

}  // namespace mori::core
