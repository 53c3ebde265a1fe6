// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Collectives that move bytes: all_gather, all_to_all, broadcast, scatter, gather, barrier. docs/ccl.md.
#include "src/ops/ccl/ccl_member.hpp"

namespace mori {
namespace {
inline namespace MORI_TARGET_NAMESPACE {

/// Where the part for, or from, each member is.
struct Parts {
  const uint64_t *offsets, *sizes;  ///< null: `count` bytes each, behind each other
  uint64_t count;

  MORI_DEVICE uint64_t begin(uint32_t i) const { return offsets == nullptr ? i * count : offsets[i]; }
  MORI_DEVICE uint64_t bytes(uint32_t i) const { return sizes == nullptr ? count : sizes[i]; }
};

/// Tells all members what I send to each. The most that anybody sends to one, or false if a member does not
/// send what I expect, or does not come. Callers: the block.
MORI_DEVICE bool agree_on_sizes(ccl::Member& m, const Parts& sends, const Parts& gets, uint64_t& longest) {
  const CclArgs& a = m.a;
  uint64_t* told = reinterpret_cast<uint64_t*>(m.in(a.index));
  for (uint32_t i = m.group.lane(); i < a.members; i += m.group.lanes()) told[i] = sends.bytes(i);
  bool came = m.meet(true);
  longest = 0;
  MORI_NO_UNROLL
  for (uint32_t from = 0; from < a.members; ++from) {
    if (!came) break;
    const uint64_t* theirs = reinterpret_cast<const uint64_t*>(m.in(from));
    MORI_NO_UNROLL
    for (uint32_t i = 0; i < a.members; ++i) {
      const uint64_t bytes = load_fresh(theirs + i);
      longest = bytes > longest ? bytes : longest;
    }
    const uint64_t sent = load_fresh(theirs + a.index);
    if (sent == gets.bytes(from)) continue;
    if (m.group.lane() == 0)
      fail(a.world, Wait::none, Refusal::mismatch, a.ranks[from], gets.bytes(from), sent);
    came = false;
  }
  ++m.turn;
  return came;
}

/// Callers: the block.
MORI_DEVICE void move(ccl::Member& m) {
  const CclArgs& a = m.a;
  const bool root = a.index == a.root;
  const bool parted = a.op == CclOp::all_to_all || a.op == CclOp::scatter;  // another part for each member
  const bool all = a.op == CclOp::all_to_all || a.op == CclOp::all_gather;
  const bool from_root = a.op == CclOp::broadcast || a.op == CclOp::scatter;
  const bool puts = all || root == from_root, takes = all || root != from_root;
  const uint64_t* splits = a.splits == 0 ? nullptr : global<const uint64_t>(a.splits);
  Parts sends{nullptr, nullptr, a.count}, gets{nullptr, nullptr, a.count};
  uint64_t longest = a.count;
  if (splits != nullptr) {
    sends = {splits, splits + a.members, 0};
    gets = {splits + 2 * a.members, splits + 3 * a.members, 0};
    if (!agree_on_sizes(m, sends, gets, longest)) return m.finish(0, m.turn);
  }
  const uint64_t room = a.chunk_bytes / (parted ? a.members : 1) / ccl::kGrain * ccl::kGrain;
  const char* source = global<const char>(a.source);
  char* dest = global<char>(a.dest);
  const bool large = longest * (a.op == CclOp::broadcast ? 1 : a.members) >= ccl::kLarge;
  m.each_step(
      longest, room,
      [&](uint64_t at, uint64_t piece) {
        // first what stays here, then what others get: all the same, or a part each
        const uint32_t last = !puts || a.source_home != 0 ? 0 : parted ? a.members - 1 : 1;
        MORI_NO_UNROLL
        for (uint32_t i = 0; i <= last; ++i) {
          const uint32_t to = parted ? m.behind(i) : a.index;
          const char* from = source + (parted ? sends.begin(to) : 0) + at;
          char* there = m.in(a.index) + (parted ? to * room : 0);
          if (i == 0) {
            const bool stays = all || (takes != puts && root);
            if (!stays) continue;
            there = dest + (from_root ? 0 : gets.begin(a.index)) + at;
          }
          const uint64_t bytes = ccl::clipped(at, piece, sends.bytes(to));
          if (there != from) copy_shared(m.group, there, from, bytes, i != 0 || large);
        }
      },
      [&](uint64_t at, uint64_t piece) {
        MORI_NO_UNROLL
        for (uint32_t i = takes ? 1 : a.members; i < a.members; ++i) {
          const uint32_t from = m.behind(i);
          if (from_root && from != a.root) continue;
          char* to = dest + (from_root ? 0 : gets.begin(from)) + at;
          const char* staged = m.in(from) + (parted ? a.index * room : 0);
          const char* there = m.source_of(from, (parted ? a.index * a.count : 0) + at, staged);
          copy_shared<FreshLoads>(m.group, to, there, ccl::clipped(at, piece, gets.bytes(from)), large);
        }
        return true;
      });
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace

MORI_KERNEL(ccl_move, CclArgs, 512) {
  ccl::Member m(args, shared_memory<uint32_t>());
  if (args.op == CclOp::barrier) {
    static_cast<void>(m.meet(true));
  } else {
    move(m);
  }
}

}  // namespace mori
