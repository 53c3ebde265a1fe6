// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Collectives over teams: one group of each PE goes through its list of cases; members of a team have the
// same cases of it in the same order. Block 1, if there is one, does so with a list of its own, over other
// teams.
#include "conformance.hpp"

namespace mori {

struct TeamCase {
  uint64_t op, type;
  uint64_t team;  // address of the shmem::Team
  uint64_t dest, source, nelems, root;
  uint64_t repeats;
  uint64_t out;  // uint64_t: number of calls that returned true; behind it what team_* said
};

struct TeamArgs {
  World world;
  uint64_t cases[2];  // of block 0 and of block 1
  uint64_t counts[2];
  uint32_t scope;
  uint32_t queue;
};

namespace conformance {
namespace {
inline namespace MORI_TARGET_NAMESPACE {

enum class Coll : uint64_t {
  sync,
  barrier,
  broadcast,
  fcollect,
  alltoall,
  min,
  max,
  sum,
  prod,
  and_,
  or_,
  xor_,
  numbers
};

#if defined(MORI_TEST_ALL_TYPES)
using CollTypes = RmaTypes;
#else
using CollTypes = Types<float, signed char, unsigned short, long>;
#endif

template <class Group, class T>
MORI_DEVICE_NOINLINE bool run_coll(const Group& group, const shmem::Ctx& ctx, const TeamCase& c, T*) {
  const shmem::Team team = *global<const shmem::Team>(c.team);
  T* dest = global<T>(c.dest);
  const T* source = global<const T>(c.source);
  const size_t n = c.nelems;
  switch (Coll(c.op)) {
    case Coll::sync:
      return shmem::sync(group, ctx, team);
    case Coll::barrier:
      return shmem::barrier(group, ctx, team);
    case Coll::broadcast:
      return shmem::broadcast(group, ctx, team, dest, source, n, uint32_t(c.root));
    case Coll::fcollect:
      return shmem::fcollect(group, ctx, team, dest, source, n);
    case Coll::alltoall:
      return shmem::alltoall(group, ctx, team, dest, source, n);
    case Coll::min:
      return shmem::min_reduce(group, ctx, team, dest, source, n);
    case Coll::max:
      return shmem::max_reduce(group, ctx, team, dest, source, n);
    case Coll::sum:
      return shmem::sum_reduce(group, ctx, team, dest, source, n);
    case Coll::prod:
      return shmem::prod_reduce(group, ctx, team, dest, source, n);
    case Coll::numbers:
      if (group.lane() == 0) {
        uint64_t* said = global<uint64_t>(c.out) + 1;
        const shmem::Team other = *global<const shmem::Team>(c.source);
        said[0] = shmem::team_my_pe(team);
        said[1] = shmem::team_n_pes(team);
        said[2] = shmem::team_pe(team, uint32_t(c.root));
        said[3] = uint64_t(int64_t(shmem::team_translate_pe(team, uint32_t(c.root), other)));
      }
      return true;
    default:
      if constexpr (!kIsFloat<T>) {
        switch (Coll(c.op)) {
          case Coll::and_:
            return shmem::and_reduce(group, ctx, team, dest, source, n);
          case Coll::or_:
            return shmem::or_reduce(group, ctx, team, dest, source, n);
          case Coll::xor_:
            return shmem::xor_reduce(group, ctx, team, dest, source, n);
          default:
            break;
        }
      }
      return false;
  }
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace
}  // namespace conformance

MORI_KERNEL(conformance_teams, TeamArgs, 256) {
  const shmem::Ctx ctx{args.world, args.queue};
  conformance::by_scope(args.scope, [&](auto group, uint32_t, uint32_t) {
    // Of each block its first group.
    if (args.scope == 0 && block_lane() != 0) return;
    if (args.scope == 1 && warp_id() != 0) return;
    const TeamCase* cases = global<const TeamCase>(args.cases[block_id()]);
    for (uint64_t i = 0; i < args.counts[block_id()]; ++i) {
      for (uint64_t repeat = 0; repeat < cases[i].repeats; ++repeat) {
        bool came = false;
        conformance::with_type(conformance::CollTypes{}, cases[i].type,
                               [&](auto* type) { came = conformance::run_coll(group, ctx, cases[i], type); });
        if (!group.all(came)) return;
        if (group.lane() == 0) *global<uint64_t>(cases[i].out) += 1;
      }
    }
  });
}

}  // namespace mori
