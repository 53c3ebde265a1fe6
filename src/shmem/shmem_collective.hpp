// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Collectives of a team: broadcast, fcollect, alltoall, reductions. Made of puts and steps only, so they run
// over any transport, and nothing is read over a link.
//
// Callers: the group; one group of each member of the team, with the same arguments (the pointers stand for
// the same symmetric objects). `dest` is symmetric and ready to be written on all members when any of them
// calls; `source` is any memory of this device. On return `dest` holds the result for all lanes of the group,
// and `source` may be written again. No alignment is asked for. With 0 elements the members only meet.
// Fails: false on the deadline: Wait::team, a PE that has not come. `dest` is then unspecified. A reduction
// in a team with less than 16 bytes of workspace for each member is refused.
#pragma once
#include "src/core/device/numeric.hpp"
#include "src/shmem/shmem_team.hpp"

namespace mori::shmem {
inline namespace MORI_TARGET_NAMESPACE {

/// `visit(member)` for all members, beginning behind myself.
template <class Visit>
MORI_DEVICE void for_members(const Team& team, Visit visit) {
  for (uint32_t i = 1; i <= team.size; ++i) visit((team.index + i) % team.size);
}

/// A step behind the group's puts. What queues carry is complete before anybody hears of it: its source may
/// then be written again, by me or by a member whom I tell so.
template <class Group>
[[nodiscard]] MORI_DEVICE bool meet(const Group& group, const Ctx& ctx, const Team& team) {
  if (has_queues(ctx.world)) {
    group.sync();
    queue_quiet(ctx, group.lane(), group.lanes(), false);
  }
  return step(group, ctx, team, Wait::team);
}

/// `nelems` elements of member `root` to all members, itself included.
template <class Group, class T>
[[nodiscard]] MORI_DEVICE bool broadcast(const Group& group, const Ctx& ctx, const Team& team, T* dest,
                                         const T* source, size_t nelems, uint32_t root) {
  if (team.index == root) {
    for_members(team, [&](uint32_t member) {
      if (member != root || source != dest) put_nbi(group, ctx, dest, source, nelems, team_pe(team, member));
    });
  }
  return meet(group, ctx, team);
}

/// `nelems` elements of each member, concatenated in member order: dest[size * nelems].
template <class Group, class T>
[[nodiscard]] MORI_DEVICE bool fcollect(const Group& group, const Ctx& ctx, const Team& team, T* dest,
                                        const T* source, size_t nelems) {
  T* mine = dest + team.index * nelems;
  for_members(team, [&](uint32_t member) {
    if (member != team.index || source != mine)
      put_nbi(group, ctx, mine, source, nelems, team_pe(team, member));
  });
  return meet(group, ctx, team);
}

/// Block j of `nelems` elements of source[size * nelems] to member j, where it becomes block `my index` of
/// dest[size * nelems]. `source` and `dest` must not overlap.
template <class Group, class T>
[[nodiscard]] MORI_DEVICE bool alltoall(const Group& group, const Ctx& ctx, const Team& team, T* dest,
                                        const T* source, size_t nelems) {
  for_members(team, [&](uint32_t member) {
    put_nbi(group, ctx, dest + team.index * nelems, source + member * nelems, nelems, team_pe(team, member));
  });
  return meet(group, ctx, team);
}

// ---- reductions ----------------------------------------------------------------------------------------
// In pieces of what the workspace holds. Of a piece member j owns part j: everybody puts its own part j into
// row `my index` of j's workspace; step; j combines the rows in member order and puts the result to every
// member's dest; step. So all members have the same bits, and dest may be source.

/// bfloat16 and float16 are combined in fp32 and rounded once.
template <class T>
struct Accumulator {
  using Type = T;
  MORI_DEVICE static T load(T value) { return value; }
  MORI_DEVICE static T round(T value) { return value; }
};
template <class T>
struct NarrowAccumulator {
  using Type = float;
  MORI_DEVICE static float load(T value) { return to_float(value); }
  MORI_DEVICE static T round(float value) {
    T out;
    from_float(value, out);
    return out;
  }
};
template <>
struct Accumulator<bfloat16> : NarrowAccumulator<bfloat16> {};
template <>
struct Accumulator<float16> : NarrowAccumulator<float16> {};

/// Part j of `nelems` elements is [nelems * j / size, nelems * (j + 1) / size).
MORI_DEVICE size_t part_begin(const Team& team, size_t nelems, uint32_t part) {
  return nelems / team.size * part + nelems % team.size * part / team.size;
}

/// rows[i] = row_of(0)[i] combined with row_of(1)[i] and so on, for i < count. Callers: the group.
template <class Group, class T, class RowOf, class Combine>
MORI_DEVICE void combine_rows(const Group& group, const Team& team, T* rows, size_t count, RowOf row_of,
                              Combine combine) {
  using Sum = Accumulator<T>;
  constexpr size_t kTile =
      kWarpSize == 1 ? 64 : 1;  // of a lane at a time: one that stands for many has vectors
  for (size_t start = group.lane() * kTile; start < count; start += group.lanes() * kTile) {
    const size_t size = count - start < kTile ? count - start : kTile;
    typename Sum::Type sum[kTile];
    for (size_t i = 0; i < size; ++i) sum[i] = Sum::load(row_of(0)[start + i]);
    for (uint32_t member = 1; member < team.size; ++member) {
      const T* row = row_of(member) + start;
      for (size_t i = 0; i < size; ++i) sum[i] = combine(sum[i], Sum::load(row[i]));
    }
    for (size_t i = 0; i < size; ++i) rows[start + i] = Sum::round(sum[i]);
  }
}

template <class Group, class T, class Combine>
[[nodiscard]] MORI_DEVICE bool reduce(const Group& group, const Ctx& ctx, const Team& team, T* dest,
                                      const T* source, size_t nelems, Combine combine) {
  const uint64_t row_bytes = team.workspace_bytes / team.size / 16 * 16;
  if (row_bytes == 0) {  // all members see the same, so none is left waiting
    if (group.lane() == 0)
      fail(ctx.world, Wait::none, Refusal::workspace, ctx.world.rank, 16ull * team.size,
           team.workspace_bytes);
    return false;
  }
  static_assert(sizeof(T) <= 8, "two elements at least in a row of 16 bytes");
  const size_t row = row_bytes / sizeof(T), piece = (row - 1) * team.size;  // a part rounds up by less than 1
  T* rows = symmetric<T>(ctx, team.workspace);
  const auto row_of = [&](uint32_t member) {
    return reinterpret_cast<T*>(reinterpret_cast<char*>(rows) + member * row_bytes);
  };
  size_t done = 0;
  do {
    const size_t count = nelems - done < piece ? nelems - done : piece;
    for_members(team, [&](uint32_t member) {
      const size_t begin = part_begin(team, count, member), end = part_begin(team, count, member + 1);
      put_nbi(group, ctx, row_of(team.index), source + done + begin, end - begin, team_pe(team, member));
    });
    if (!meet(group, ctx, team)) return false;
    const size_t begin = part_begin(team, count, team.index), end = part_begin(team, count, team.index + 1);
    combine_rows(group, team, rows, end - begin, row_of, combine);
    group.sync();
    for_members(team, [&](uint32_t member) {
      put_nbi(group, ctx, dest + done + begin, rows, end - begin, team_pe(team, member));
    });
    if (!meet(group, ctx, team)) return false;
    done += count;
  } while (done < nelems);
  return true;
}

struct Sum {
  template <class T>
  MORI_DEVICE T operator()(T a, T b) const {
    return T(a + b);
  }
};
struct Product {
  template <class T>
  MORI_DEVICE T operator()(T a, T b) const {
    return T(a * b);
  }
};
struct Minimum {
  template <class T>
  MORI_DEVICE T operator()(T a, T b) const {
    return b < a ? b : a;
  }
};
struct Maximum {
  template <class T>
  MORI_DEVICE T operator()(T a, T b) const {
    return a < b ? b : a;
  }
};
struct BitAnd {
  template <class T>
  MORI_DEVICE T operator()(T a, T b) const {
    return T(a & b);
  }
};
struct BitOr {
  template <class T>
  MORI_DEVICE T operator()(T a, T b) const {
    return T(a | b);
  }
};
struct BitXor {
  template <class T>
  MORI_DEVICE T operator()(T a, T b) const {
    return T(a ^ b);
  }
};

/// Integers wrap around; sums and products of floats are combined in member order.
template <class Group, class T>
[[nodiscard]] MORI_DEVICE bool sum_reduce(const Group& group, const Ctx& ctx, const Team& team, T* dest,
                                          const T* source, size_t nelems) {
  return reduce(group, ctx, team, dest, source, nelems, Sum{});
}
template <class Group, class T>
[[nodiscard]] MORI_DEVICE bool prod_reduce(const Group& group, const Ctx& ctx, const Team& team, T* dest,
                                           const T* source, size_t nelems) {
  return reduce(group, ctx, team, dest, source, nelems, Product{});
}
/// Of a NaN and a number the one that came first stays.
template <class Group, class T>
[[nodiscard]] MORI_DEVICE bool min_reduce(const Group& group, const Ctx& ctx, const Team& team, T* dest,
                                          const T* source, size_t nelems) {
  return reduce(group, ctx, team, dest, source, nelems, Minimum{});
}
template <class Group, class T>
[[nodiscard]] MORI_DEVICE bool max_reduce(const Group& group, const Ctx& ctx, const Team& team, T* dest,
                                          const T* source, size_t nelems) {
  return reduce(group, ctx, team, dest, source, nelems, Maximum{});
}
template <class Group, class T>
[[nodiscard]] MORI_DEVICE bool and_reduce(const Group& group, const Ctx& ctx, const Team& team, T* dest,
                                          const T* source, size_t nelems) {
  return reduce(group, ctx, team, dest, source, nelems, BitAnd{});
}
template <class Group, class T>
[[nodiscard]] MORI_DEVICE bool or_reduce(const Group& group, const Ctx& ctx, const Team& team, T* dest,
                                         const T* source, size_t nelems) {
  return reduce(group, ctx, team, dest, source, nelems, BitOr{});
}
template <class Group, class T>
[[nodiscard]] MORI_DEVICE bool xor_reduce(const Group& group, const Ctx& ctx, const Team& team, T* dest,
                                          const T* source, size_t nelems) {
  return reduce(group, ctx, team, dest, source, nelems, BitXor{});
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori::shmem
