// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Every family of SHMEM that orders something, with plain reads and writes on both sides of it: what fence,
// quiet, get, waits, sync and the collectives fail to order, ThreadSanitizer sees. By block 0 of each rank.
#include "tests/sanitize/shmem_families.hpp"

#include <mori/shmem.hpp>

namespace mori {
namespace {
inline namespace MORI_TARGET_NAMESPACE {

using namespace shmem;

MORI_DEVICE uint32_t pattern(uint64_t round, uint32_t pe, uint64_t i) {
  return uint32_t(round * 7919 + pe * 131 + i);
}

struct Place {
  const ShmemFamiliesArgs& a;
  uint64_t round;
  uint32_t me, n, next, previous;
  Ctx ctx;
};

/// Two puts and then one signal, a fence between: both payloads are there.
template <class Group>
MORI_DEVICE bool fenced(const Place& at, const Group& group, uint64_t& wrong) {
  uint32_t* data = global<uint32_t>(at.a.data);
  uint32_t* own = global<uint32_t>(at.a.own);
  const uint64_t half = at.a.words / 2;
  for (uint64_t i = group.lane(); i < at.a.words; i += group.lanes()) own[i] = pattern(at.round, at.me, i);
  group.sync();
  put_nbi(group, at.ctx, data, own, half, at.next);
  put_nbi(group, at.ctx, data + half, own + half, at.a.words - half, at.next);
  fence(group, at.ctx, at.next);
  uint64_t* flag = global<uint64_t>(at.a.flags);
  if (group.lane() == 0) p(at.ctx, flag, at.round, at.next);
  if (!wait_until(group, at.ctx, flag, Cmp::ge, at.round, at.previous)) return false;
  for (uint64_t i = group.lane(); i < at.a.words; i += group.lanes())
    wrong += data[i] != pattern(at.round, at.previous, i);
  return true;
}

/// Everybody adds to a counter of every rank behind a quiet; the counters are awaited, all and any of them.
template <class Group>
MORI_DEVICE bool counted(const Place& at, const Group& group, uint64_t& wrong) {
  uint32_t* counts = global<uint32_t>(at.a.counts);
  quiet(group, at.ctx);
  for (uint32_t pe = group.lane(); pe < at.n; pe += group.lanes()) {
    atomic_add(at.ctx, counts, 1u, pe);
    atomic_inc(at.ctx, counts + 1, pe);
    atomic_or(at.ctx, counts + 2, 1u << at.me, pe);
  }
  const uint32_t values[] = {uint32_t(at.round) * at.n, uint32_t(at.round) * at.n, (1u << at.n) - 1};
  if (!wait_until_all_vector(group, at.ctx, counts, 3, nullptr, Cmp::ge, values)) return false;
  size_t index = kNone;
  if (!wait_until_any(group, at.ctx, counts, 3, nullptr, Cmp::ge, 1u, index)) return false;
  wrong += index != 0;
  size_t* indices = global<size_t>(at.a.indices);
  size_t count = 0;
  if (!wait_until_some(group, at.ctx, counts, 3, indices, nullptr, Cmp::ge, 1u, count)) return false;
  for (size_t i = 0; i < count; ++i) wrong += indices[i] != i;  // by every lane
  wrong += count != 3;
  group.sync();  // the indices are written again next round
  return true;
}

/// Collectives, of plainly written sources, into plainly read results; a get between two syncs.
template <class Group>
MORI_DEVICE bool collected(const Place& at, const Group& group, uint64_t& wrong) {
  const Team& team = at.a.team;
  uint32_t* own = global<uint32_t>(at.a.own);
  uint32_t* sums = global<uint32_t>(at.a.sums);
  uint32_t* gathered = global<uint32_t>(at.a.gathered);
  if (!sync(group, at.ctx, team)) return false;
  for (uint64_t i = group.lane(); i < at.a.words; i += group.lanes()) {
    own[i] = sums[i] = pattern(at.round, at.me, i);
  }
  group.sync();
  if (!sum_reduce(group, at.ctx, team, sums, sums, at.a.words)) return false;
  if (!fcollect(group, at.ctx, team, gathered, own, at.a.words)) return false;
  for (uint64_t i = group.lane(); i < at.a.words; i += group.lanes()) {
    uint32_t sum = 0;
    for (uint32_t pe = 0; pe < at.n; ++pe) {
      sum += pattern(at.round, pe, i);
      wrong += gathered[pe * at.a.words + i] != pattern(at.round, pe, i);
    }
    wrong += sums[i] != sum;
  }
  group.sync();  // own is written by the lanes of get
  get(group, at.ctx, own, sums, at.a.words, at.next);
  for (uint64_t i = group.lanes() - 1 - group.lane(); i < at.a.words; i += group.lanes())
    wrong += own[i] != sums[i];
  return sync(group, at.ctx, team);
}

template <class Group>
MORI_DEVICE void families(const ShmemFamiliesArgs& a, const Group& group) {
  const uint32_t me = a.world.rank, n = a.world.world_size;
  uint64_t wrong = 0;
  for (uint64_t round = a.first; round < a.first + a.rounds; ++round) {
    const Place at{a, round, me, n, (me + 1) % n, (me + n - 1) % n, Ctx(a.world)};
    // in this order: under the sanitizer a fence helps everything behind it, so what needs none comes first
    if (!collected(at, group, wrong) || !fenced(at, group, wrong) || !counted(at, group, wrong)) return;
  }
  uint64_t* out = global<uint64_t>(a.out);
  fetch_add_relaxed<Scope::device>(out, wrong);
  if (group.lane() == 0) out[1] = a.rounds;
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace

MORI_KERNEL(shmem_families, ShmemFamiliesArgs, 512) {
  if (block_id() != 0) return;
  if (args.by_block) {
    families(args, Block{shared_memory<uint32_t>()});
  } else if (warp_id() == 0) {
    families(args, Warp{});
  }
}

}  // namespace mori
