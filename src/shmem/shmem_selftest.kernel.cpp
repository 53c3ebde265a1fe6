// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// SHMEM, tried on the target itself, by threads, warps and blocks: tests/shmem/ runs these kernels on every
// kind of device. Shared memory: 4 bytes.
#include "src/shmem/shmem_selftest.hpp"

#include "src/shmem/shmem_device.hpp"

namespace mori {
namespace {
inline namespace MORI_TARGET_NAMESPACE {

using shmem::Cmp;
using shmem::SignalOp;

/// Calls test(args, group, index of the group) in the groups that take part.
#define MORI_FOR_GROUP(test, a)                                                             \
  switch ((a).by) {                                                                         \
    case SelfTestGroup::thread:                                                             \
      if (block_id() * block_lanes() + block_lane() < (a).groups)                           \
        test((a), Thread{}, block_id() * block_lanes() + block_lane());                     \
      break;                                                                                \
    case SelfTestGroup::warp:                                                               \
      if (global_warp() < (a).groups) test((a), Warp{}, global_warp());                     \
      break;                                                                                \
    case SelfTestGroup::block:                                                              \
      if (block_id() < (a).groups) test((a), Block{shared_memory<uint32_t>()}, block_id()); \
      break;                                                                                \
  }

template <class Group>
MORI_DEVICE void test_put(const ShmemSelfTestArgs& a, const Group& group, uint32_t index) {
  const uint32_t me = shmem::my_pe(a.world), n = shmem::n_pes(a.world);
  char* to = global<char>(a.to) + (uint64_t(me) * a.groups + index) * a.stride;
  for (uint32_t k = 0; k < a.pes; ++k) {
    shmem::putmem_nbi(group, a.world, to, global<const char>(a.from) + index * a.stride, a.bytes,
                      (me + a.distance + k) % n);
  }
  shmem::quiet(group, a.world);
}

MORI_DEVICE uint8_t pattern(uint64_t round, uint32_t pe, uint32_t index, uint64_t byte) {
  return uint8_t(round * 131 + pe * 29 + index * 7 + byte * 3 + (byte >> 8));
}

template <class Group>
MORI_DEVICE void test_exchange(const ShmemSelfTestArgs& a, const Group& group, uint32_t index) {
  const uint32_t me = shmem::my_pe(a.world), n = shmem::n_pes(a.world);
  const uint32_t next = (me + a.distance) % n, previous = (me + n - a.distance % n) % n;
  uint64_t* arrived = global<uint64_t>(a.signals) + index;
  uint64_t* taken = arrived + a.groups;
  uint8_t* inbox = global<uint8_t>(a.to) + index * a.stride;
  uint8_t* outbox = global<uint8_t>(a.from) + index * a.stride;
  uint64_t wrong = 0;
  for (uint64_t round = 1; round <= a.rounds; ++round) {
    for (uint64_t i = group.lane(); i < a.bytes; i += group.lanes()) outbox[i] = pattern(round, me, index, i);
    group.sync();
    shmem::putmem_signal(group, a.world, inbox, outbox, a.bytes, arrived, round, SignalOp::set, next);
    if (!shmem::signal_wait_until(group, a.world, taken, Cmp::ge, round - 1, next))
      return;  // there already: two waits
    if (!shmem::signal_wait_until(group, a.world, arrived, Cmp::ge, round, previous)) return;
    for (uint64_t i = group.lane(); i < a.bytes; i += group.lanes()) {
      wrong += inbox[i] != pattern(round, previous, index, i);
    }
    shmem::putmem_signal(group, a.world, nullptr, nullptr, 0, taken, round, SignalOp::set, previous);
    if (!shmem::signal_wait_until(group, a.world, taken, Cmp::ge, round, next)) return;
  }
  uint64_t* out = global<uint64_t>(a.out) + 2 * index;
  fetch_add_relaxed<Scope::device>(out, wrong);
  if (group.lane() == 0) out[1] = a.rounds;
}

template <class Group>
MORI_DEVICE void test_wait(const ShmemSelfTestArgs& a, const Group& group, uint32_t index) {
  const uint32_t from_pe = (shmem::my_pe(a.world) + a.distance) % shmem::n_pes(a.world);
  const bool came = shmem::signal_wait_until(group, a.world, global<const uint64_t>(a.signals) + index,
                                             Cmp::ge, a.rounds, from_pe);
  fetch_add_relaxed<Scope::device>(global<uint64_t>(a.out) + 2 * index + came, uint64_t(1));
}

template <class Group>
MORI_DEVICE void test_barrier(const ShmemSelfTestArgs& a, const Group& group, uint32_t index) {
  const uint32_t me = shmem::my_pe(a.world), n = shmem::n_pes(a.world);
  const shmem::Team team{.signals = a.signals - global<const uint64_t>(a.world.bases)[me],
                         .workspace = 0,
                         .workspace_bytes = 0,
                         .start = 0,
                         .stride = 1,
                         .size = n,
                         .index = me};
  uint64_t* words = global<uint64_t>(a.to);
  uint64_t wrong = 0, round = 1;
  for (; round <= a.rounds; ++round) {
    uint64_t* row = words + round % 2 * n;  // who has passed the barrier may write the other one
    for (uint32_t pe = group.lane(); pe < n; pe += group.lanes()) {
      if (uint64_t* theirs = shmem::ptr(a.world, row + me, pe)) {
        *theirs = round;
      } else {
        shmem::p(a.world, row + me, round, pe);
      }
    }
    if (!shmem::barrier(group, a.world, team)) break;
    for (uint32_t pe = group.lanes() - 1 - group.lane(); pe < n; pe += group.lanes())
      wrong += row[pe] != round;
  }
  uint64_t* out = global<uint64_t>(a.out) + 2 * index;
  fetch_add_relaxed<Scope::device>(out, wrong);
  if (group.lane() == 0) out[1] = round - 1;
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace

/// Group g writes `bytes` from from + g * stride into slot rank * groups + g of `to`, `stride` apart, at
/// `pes` ranks from `distance` on.
MORI_KERNEL(shmem_selftest_put, ShmemSelfTestArgs, 512){MORI_FOR_GROUP(test_put, args)}

/// `rounds` times each group fills its outbox (`from`), sends it with a signal to the rank at `distance`,
/// checks what came into its inbox (`to`) and returns a bare signal. signals: uint64[2][groups]. out:
/// uint64[groups][2]: bytes that were wrong, rounds.
MORI_KERNEL(shmem_selftest_exchange, ShmemSelfTestArgs, 512){MORI_FOR_GROUP(test_exchange, args)}

/// Each group waits until signals[g] >= rounds, said to be set by the rank at `distance`.
/// out: uint64[groups][2]: lanes whose wait failed, lanes whose wait succeeded.
MORI_KERNEL(shmem_selftest_wait, ShmemSelfTestArgs, 512){MORI_FOR_GROUP(test_wait, args)}

/// `rounds` barriers; before each a word for every rank, checked behind it. to: uint64[2][ranks], signals:
/// uint64[ranks]; out as of exchange. One group.
MORI_KERNEL(shmem_selftest_barrier, ShmemSelfTestArgs, 512) {
  MORI_FOR_GROUP(test_barrier, args)
}

}  // namespace mori
