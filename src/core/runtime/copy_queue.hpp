// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// A stream of one's own for moving bytes: copies and kernels queued in order, and a mark behind them that
// tells without waiting whether they have ended. On a GPU: a stream that waits for no other one, its copy
// engines, and a mark: an event, or a word of pinned memory that the last kernel writes by itself, which a
// waiter sees sooner and cheaper. On the CPU everything has ended when the call returns.
//
// Not a mark is a word that the stream writes (cuStreamWriteValue32): its fence waits for what other streams
// have under way, 40 us for 64 MiB over NVLink and 120 us over PCIe (H200).
//
// Not thread-safe: one user at a time. Calls leave the thread's current GPU as they found it; failures throw
// core::Error.
#pragma once
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>

#include "src/core/runtime/device.hpp"

namespace mori::core {

class CopyQueue {
 public:
  explicit CopyQueue(std::shared_ptr<Device> device);
  /// What is queued must have ended.
  ~CopyQueue();
  CopyQueue(const CopyQueue&) = delete;
  CopyQueue& operator=(const CopyQueue&) = delete;

  const std::shared_ptr<Device>& device() const { return device_; }
  /// Any direction. Host memory should be pinned (pin_host), else the driver copies before it returns.
  void copy(uint64_t to, uint64_t from, size_t bytes);
  void launch(const Function& function, const LaunchShape& shape, const void* args);
  /// Marks what was queued so far. There is one mark: an earlier one is forgotten.
  void mark();
  /// The same, by a kernel that is launched next: it writes `value` to `address` (uint64, pinned memory) once
  /// all it did is visible everywhere. Nothing, where only mark() is to be had.
  struct Word {
    uint64_t address;
    uint64_t value;
  };
  std::optional<Word> marked_by_kernel();
  /// Whether everything in front of the mark has ended. Throws what it failed with.
  bool reached();

 private:
  std::shared_ptr<Device> device_;
  uint64_t stream_ = 0;
  uint64_t event_ = 0;
  HostMemory word_;
  uint64_t marks_ = 0;
  bool by_kernel_ = false;  ///< the last mark is a word
  std::chrono::steady_clock::time_point marked_{};
};

/// Makes host memory of somebody else reachable for a GPU, and its address there. Pages are shared by what
/// lies in them, so memory that is pinned already counts as pinned, and `mine` says whether unpin_host() is
/// due. Throws core::Error if the driver refuses. On the CPU: the address itself.
struct PinnedHost {
  uint64_t device_address = 0;
  bool mine = false;
};
PinnedHost pin_host(Device& device, uint64_t address, size_t bytes);
void unpin_host(Device& device, uint64_t address) noexcept;

}  // namespace mori::core
