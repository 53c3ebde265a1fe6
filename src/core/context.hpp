// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// One rank's view of its group on the host: the device, the World that every kernel gets, and the error
// word in which kernels report. Products keep a shared_ptr; the control plane (python/mori/context.py)
// makes it from a heap and decides what a failure means.
#pragma once
#include <array>
#include <memory>
#include <string>

#include "src/core/device/world.hpp"
#include "src/core/runtime/device.hpp"

namespace mori::core {

const char* wait_name(Wait wait);  ///< "ep.dispatch: row counts of a peer", for messages
const char* refusal_name(Refusal refusal);

/// Who takes part, and where their memory is.
struct Group {
  uint32_t rank = 0;
  uint32_t world_size = 1;
  uint64_t bases = 0;            ///< device address of uint64_t[world_size]
  uint64_t timeout_ns = 0;       ///< deadline of every wait; 0 = for ever
  uint32_t ranks_on_device = 1;  ///< contexts whose kernels must run at the same time on this device
};

class Context {
 public:
  Context(std::shared_ptr<Device> device, const Group& group);
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  Device& device() const { return *device_; }
  const std::shared_ptr<Device>& shared_device() const { return device_; }
  const World& world() const { return world_; }
  uint64_t timeout_ns() const { return timeout_ns_; }  ///< deadline of every wait; 0 = for ever

  /// Blocks of a kernel that are sure to run at the same time, next to those of the other ranks on this
  /// device.
  uint32_t resident_blocks(const Function& function, uint32_t warps, uint32_t shared_bytes) const;

  /// From now on kernels get these in their World; `owner` of the memory stays as long as the context. Before
  /// any kernel is launched.
  void use_queues(uint64_t bases, uint64_t fabric, std::shared_ptr<void> owner);

  /// What the kernels recorded; state is 0 while all is well.
  ErrorWord error() const;
  /// What a kernel would record, by the host; the first failure wins. Callable from any thread.
  void record(Wait wait, Refusal refusal, uint64_t peer, uint64_t expected, uint64_t seen);
  /// Whether they recorded nothing, and no peer is lost.
  bool is_clean() const;
  /// Forgets a refusal (not a failed wait: after one, ranks may disagree about epochs).
  void clear_refusal();
  /// Forgets a failed wait and a lost peer too. No kernel of this rank may run, and whatever the failed call
  /// used must be made new: ranks may disagree about it.
  void clear_failure();
  /// Makes all waits leave at once: the peer is lost. Callable from any thread.
  void leave_waits(uint32_t lost_peer);

 private:
  std::shared_ptr<Device> device_;
  HostMemory error_memory_;
  World world_;
  std::shared_ptr<void> queues_;
  uint32_t ranks_on_device_;
  uint64_t timeout_ns_ = 0;
};

/// A launch that is made again and again, with other words at one place of its arguments.
class PreparedLaunch {
 public:
  static constexpr size_t kWords = 4, kMostBytes = 1024;  // of arguments

  /// Throws ConfigError unless `args` are the function's, and the words lie within.
  PreparedLaunch(std::shared_ptr<Context> context, const Function& function, const LaunchShape& shape,
                 std::string args, size_t place);
  /// Whether the context is clean afterwards.
  bool run(uint64_t stream, const std::array<uint64_t, kWords>& words) const;

 private:
  std::shared_ptr<Context> context_;
  const Function* function_;
  LaunchShape shape_;
  std::string args_;
  size_t place_;
};

}  // namespace mori::core
