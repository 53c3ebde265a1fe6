// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// One block of one member: where its memory is, how it meets the same block of the others, and what every
// collective does with parts. docs/ccl.md, "One step".
#pragma once
#include "src/core/device/collective.hpp"
#include "src/ops/ccl/ccl_args.hpp"
#include "src/transport/p2p/p2p.hpp"

namespace mori {
inline namespace MORI_TARGET_NAMESPACE {
namespace ccl {

inline constexpr uint64_t kGrain = 16;  // bytes; parts of blocks and steps are multiples of it

MORI_DEVICE uint64_t round_up(uint64_t value, uint64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}
MORI_DEVICE uint64_t smaller(uint64_t a, uint64_t b) { return a < b ? a : b; }
/// How much of [at, at + piece) is there, of something of `bytes` bytes.
MORI_DEVICE uint64_t clipped(uint64_t at, uint64_t piece, uint64_t bytes) {
  return at < bytes ? smaller(piece, bytes - at) : 0;
}

/// A result of more bytes goes past the caches: none keeps it until it is read.
inline constexpr uint64_t kLarge = uint64_t(8) << 20;

/// Which of a member's operands peers read in place, by member.
struct InPlace {
  uint64_t sources = 0, dests = 0;
};

struct Member {
  const CclArgs& a;
  Block group;
  uint64_t turn;          ///< of the next step
  uint64_t places = 0;    ///< offset of what the members told at the first meeting of this call
  InPlace in_place = {};  ///< known from then on

  MORI_DEVICE Member(const CclArgs& args, uint32_t* flag)
      : a(args), group{flag}, turn(load_relaxed<Scope::device>(counter(0))) {}

  MORI_DEVICE uint64_t* counter(uint32_t which) const {
    return peer_pointer<uint64_t>(a.world, a.world.rank, a.counters) + block_id() * 2 + which;
  }
  /// The i-th member behind mine: not everybody at member 0 first.
  MORI_DEVICE uint32_t behind(uint32_t i) const { return (a.index + i) % a.members; }
  template <class T>
  MORI_DEVICE T* of(uint32_t member, uint64_t offset) const {
    return peer_pointer<T>(a.world, a.ranks[member], offset);
  }
  MORI_DEVICE char* in(uint32_t member) const {
    return of<char>(member, a.staging + (block_id() * 3 + (turn & 1)) * a.chunk_bytes);
  }
  MORI_DEVICE char* out(uint32_t member) const {
    return of<char>(member, a.staging + (block_id() * 3 + 2) * a.chunk_bytes);
  }

  /// Where to read member i's source from `at` on: in place, or what it has staged.
  MORI_DEVICE const char* source_of(uint32_t i, uint64_t at, const char* staged) const {
    if (i == a.index) return global<const char>(a.source) + at;
    return (in_place.sources >> i & 1) != 0 ? of<const char>(i, home(1, i) - 1) + at : staged;
  }
  /// The same of a result.
  MORI_DEVICE const char* dest_of(uint32_t i, uint64_t at, const char* staged) const {
    return (in_place.dests >> i & 1) != 0 ? of<const char>(i, home(2, i) - 1) + at : staged;
  }
  MORI_DEVICE uint64_t home(uint32_t which, uint32_t i) const {
    return load_relaxed<Scope::system>(of<uint64_t>(a.index, places) + which * a.members + i);
  }

  /// Every member's block is here. Callers: the block. Orders: the blocks' earlier writes before all members'
  /// later accesses, system-wide. Fails: false on the deadline (Wait::collective), or when a member calls
  /// something else (Refusal::mismatch), if `checked`.
  [[nodiscard]] MORI_DEVICE bool meet(bool checked) {
    const uint64_t signals = a.signals + block_id() * a.members * sizeof(uint64_t);
    const uint64_t* mine = of<uint64_t>(a.index, signals);
    const uint64_t epoch = load_relaxed<Scope::system>(mine + a.index) + 1;
    if (checked) places = a.told + (block_id() * 2 + (epoch & 1)) * 3 * a.members * sizeof(uint64_t);
    finish_large_copies();
    group.sync();  // all lanes have read it, and their writes come before the signals
    for (uint32_t i = group.lane(); i < a.members; i += group.lanes()) {
      const uint32_t member = behind(i + 1);
      if (checked) {
        uint64_t* theirs = of<uint64_t>(member, places) + a.index;
        store_relaxed<Scope::system>(theirs, a.digest);
        store_relaxed<Scope::system>(theirs + a.members, a.source_home);
        store_relaxed<Scope::system>(theirs + 2 * a.members, a.dest_home);
      }
      store_release<Scope::system>(of<uint64_t>(member, signals) + a.index, epoch);
    }
    bool came = true;
    for (uint32_t i = group.lane(); i < a.members && came; i += group.lanes()) {
      came = wait_until(a.world, mine + i, epoch, Wait::collective, a.ranks[i]);
      if (checked) {
        const uint64_t theirs = home(0, i);
        if (came && theirs != a.digest) {
          fail(a.world, Wait::none, Refusal::mismatch, a.ranks[i], a.digest, theirs);
          came = false;
        }
      }
    }
    came = group.all(came);
    if (checked && came) {
      MORI_NO_UNROLL
      for (uint32_t i = 0; i < a.members; ++i) {
        in_place.sources |= uint64_t(home(1, i) != 0) << i;
        in_place.dests |= uint64_t(home(2, i) != 0) << i;
      }
    }
    return came;
  }

  /// Whether nobody stages anything. `dests`: results are read from there too.
  MORI_DEVICE bool all_in_place(bool dests) const {
    const uint64_t all = ~uint64_t(0) >> (64 - a.members);
    return in_place.sources == all && (!dests || in_place.dests == all);
  }

  /// Goes through `bytes` in steps, in each of them a piece of at most `most` bytes by every block. put(at,
  /// piece) fills in(mine), take(at, piece) reads behind the meeting, and says whether to go on; what they
  /// find beyond the end is not theirs. Pieces are multiples of `grain`, and so is `bytes` if a piece must
  /// end with one. Where nobody stages (`dests`: nor results) the second step is the rest. Nothing to move is
  /// a call too, which a member may take for something else. Callers: the block.
  template <class Put, class Take>
  MORI_DEVICE void each_step(uint64_t bytes, uint64_t most, Put put, Take take, uint64_t grain = kGrain,
                             bool dests = false) {
    const uint64_t share = round_up((bytes + grid_blocks() - 1) / grid_blocks(), grain);
    uint64_t piece = smaller(most / grain * grain, share == 0 ? grain : share);
    bool first = true, going = true, meets = true;
    for (uint64_t base = 0; going && (first || base < bytes);) {
      const uint64_t at = base + block_id() * piece;
      put(at, piece);
      going = (!meets || meet(first)) && take(at, piece);
      ++turn;
      first = false;
      base += piece * grid_blocks();
      if (meets && all_in_place(dests) && base < bytes) {
        meets = false;
        piece = round_up((bytes - base + grid_blocks() - 1) / grid_blocks(), grain);
      }
    }
    // The caller may write again what peers have read in place, and they the places that they told.
    if (going && (in_place.sources | in_place.dests) != 0) static_cast<void>(meet(false));
    finish(0, turn);
  }
  /// Leaves a counter for the next launch.
  MORI_DEVICE void finish(uint32_t which, uint64_t value) const {
    finish_large_copies();
    group.sync();
    if (group.lane() == 0) store_relaxed<Scope::device>(counter(which), value);
  }
};

}  // namespace ccl
}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori
