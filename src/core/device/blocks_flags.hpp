// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Flags between the blocks of a GPU, its kernels, or ranks that map each other's memory: words that only
// grow, so that nothing is reset by the host and a captured graph replays.
//
//   publish(group, flag, value)  await(group, world, flag, value)   what the group wrote, then the word
//   last_to_arrive(group, counter, parties)                         who comes last goes on with what all
//   wrote Ring{filled, emptied, depth}                                    slots that are used again: credits
//   begin_epoch(epoch, arrivals)                                    the number of this launch, kept on the
//   device
//
// Scope::device reaches the GPU's own blocks and kernels, Scope::system (the default) peers too. Through
// shmem::ptr() a flag may be a peer's; what reaches a PE by other ways is shmem::put_signal.
#pragma once
#include "src/core/device/collective.hpp"

namespace mori {
inline namespace MORI_TARGET_NAMESPACE {
namespace blocks {

/// Callers: the group. Orders: what its lanes wrote before the flag, at scope S.
template <Scope S = Scope::system, class Group>
MORI_DEVICE void publish(const Group& group, uint64_t* flag, uint64_t value) {
  group.sync();
  if (group.lane() == 0) store_release<S>(flag, value);
}

/// Waits until *flag >= value. Callers: the group. Orders: acquire, for all its lanes. Fails: false in all of
/// them, with Wait::signal, `from`, `value` and the value seen in the error word; leave the kernel then.
template <Scope S = Scope::system, class Group>
[[nodiscard]] MORI_DEVICE bool await(const Group& group, const World& world, const uint64_t* flag,
                                     uint64_t value, uint64_t from) {
  bool came = true;
  if (group.lane() == 0) came = wait_until<S>(world, flag, value, Wait::signal, from);
  return group.broadcast(came);
}

/// True for the last of `parties` groups that arrive at the counter, 0 at first; it sees what all of them
/// wrote before. The counter goes on from there, so every `parties` arrivals have a last one.
/// Callers: the group. Orders: as publish and await.
template <Scope S = Scope::device, class Group>
[[nodiscard]] MORI_DEVICE bool last_to_arrive(const Group& group, uint64_t* counter, uint64_t parties) {
  group.sync();
  bool last = false;
  if (group.lane() == 0) last = (fetch_add_acq_rel<S>(counter, uint64_t(1)) + 1) % parties == 0;
  return group.broadcast(last);
}

/// `depth` slots between one writer and one reader. Rounds count from 1; round r uses slot(r). The writer
/// alone raises `filled`, the reader alone `emptied`; both are 0 at first.
template <Scope S = Scope::system>
struct Ring {
  uint64_t *filled, *emptied;  ///< where the other side waits for them
  uint64_t depth;

  MORI_DEVICE uint64_t slot(uint64_t round) const { return (round - 1) % depth; }

  /// Writer: before it writes slot(round). Callers, fails: as await.
  template <class Group>
  [[nodiscard]] MORI_DEVICE bool await_free(const Group& group, const World& world, uint64_t round,
                                            uint64_t reader) const {
    if (round <= depth) return true;
    return await<S>(group, world, emptied, round - depth, reader);
  }
  /// Writer: slot(round) is written. Callers, orders: as publish.
  template <class Group>
  MORI_DEVICE void fill(const Group& group, uint64_t round) const {
    publish<S>(group, filled, round);
  }
  /// Reader: before it reads slot(round). Callers, fails: as await.
  template <class Group>
  [[nodiscard]] MORI_DEVICE bool await_filled(const Group& group, const World& world, uint64_t round,
                                              uint64_t writer) const {
    return await<S>(group, world, filled, round, writer);
  }
  /// Reader: slot(round) has been read. Callers, orders: as publish.
  template <class Group>
  MORI_DEVICE void release(const Group& group, uint64_t round) const {
    publish<S>(group, emptied, round);
  }
};

/// Advances an epoch in device memory at the start of a launch, and tells the launch's: the last block to
/// arrive writes it, when all have read it. Both words are 0 at first. Callers: one lane of each block.
MORI_DEVICE uint64_t begin_epoch(uint64_t* epoch, uint32_t* arrivals) {
  const uint64_t mine = load_relaxed<Scope::device>(epoch) + 1;
  if (fetch_add_acq_rel<Scope::device>(arrivals, 1u) + 1 == grid_blocks()) {
    store_relaxed<Scope::device>(arrivals, 0u);
    store_relaxed<Scope::device>(epoch, mine);
  }
  return mine;
}

}  // namespace blocks
}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori
