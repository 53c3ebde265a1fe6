// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// program.h inside a kernel: one group of each PE runs it on this library's device functions.
#include <mori/shmem.hpp>

namespace mori {

struct OracleArgs {
  World world;
  uint64_t memory;    // symmetric: oracle_memory
  uint64_t teams[3];  // addresses of shmem::Team; 0 where this PE is no member
  uint64_t seed;
  uint32_t scope;  // 0 thread, 1 warp, 2 block
  uint32_t queue;
};

namespace {
inline namespace MORI_TARGET_NAMESPACE {

template <class Group>
struct Env {
  Group group;
  shmem::Ctx ctx;
  uint32_t me, n;
  const uint64_t* teams;

  MORI_DEVICE shmem::Team team(uint32_t set) const { return *global<const shmem::Team>(teams[set]); }
  /// What f returns in lane 0, which alone calls it, in every lane. Through the group's memory: the value is
  /// 64 bits.
  template <class F>
  MORI_DEVICE uint64_t once(F f) const {
    uint64_t value = 0;
    if (group.lane() == 0) value = f();
    uint64_t all = 0;
    for (uint32_t bit = 0; bit < 64; ++bit) all |= uint64_t(group.broadcast((value >> bit & 1) != 0)) << bit;
    return all;
  }
};

#define ORACLE_FUNCTION  \
  template <class Group> \
  MORI_DEVICE_NOINLINE
#define ORACLE_ENV const Env<Group>
#define ORACLE_OP        \
  template <class Group> \
  MORI_DEVICE void

ORACLE_OP op_store(ORACLE_ENV* e, uint64_t* to, uint64_t value) {
  e->group.sync();
  if (e->group.lane() == 0) *to = value;
  e->group.sync();
}
ORACLE_OP op_store_double(ORACLE_ENV* e, double* to, double value) {
  e->group.sync();
  if (e->group.lane() == 0) *to = value;
  e->group.sync();
}
ORACLE_OP op_quiet(ORACLE_ENV* e) {
  shmem::quiet(e->group, e->ctx);
  e->group.sync();
}
ORACLE_OP op_barrier(ORACLE_ENV* e) { (void)!shmem::barrier(e->group, e->ctx, e->team(0)); }

ORACLE_OP op_put64(ORACLE_ENV* e, uint64_t* d, const uint64_t* s, size_t n, uint32_t pe) {
  shmem::put(e->group, e->ctx, d, s, n, pe);
}
ORACLE_OP op_put32(ORACLE_ENV* e, uint32_t* d, const uint32_t* s, size_t n, uint32_t pe) {
  shmem::put_nbi(e->group, e->ctx, d, s, n, pe);
}
ORACLE_OP op_putmem(ORACLE_ENV* e, void* d, const void* s, size_t n, uint32_t pe) {
  shmem::putmem(e->group, e->ctx, d, s, n, pe);
}
ORACLE_OP op_get64(ORACLE_ENV* e, uint64_t* d, const uint64_t* s, size_t n, uint32_t pe) {
  shmem::get(e->group, e->ctx, d, s, n, pe);
}
ORACLE_OP op_getmem(ORACLE_ENV* e, void* d, const void* s, size_t n, uint32_t pe) {
  shmem::getmem_nbi(e->group, e->ctx, d, s, n, pe);
}
ORACLE_OP op_p64(ORACLE_ENV* e, uint64_t* d, uint64_t v, uint32_t pe) {
  if (e->group.lane() == 0) shmem::p(e->ctx, d, v, pe);
}
ORACLE_OP op_p32(ORACLE_ENV* e, uint32_t* d, uint32_t v, uint32_t pe) {
  if (e->group.lane() == 0) shmem::p(e->ctx, d, v, pe);
}
template <class Group>
MORI_DEVICE uint64_t op_g64(ORACLE_ENV* e, const uint64_t* s, uint32_t pe) {
  return shmem::g(e->ctx, s, pe);
}
ORACLE_OP op_iput64(ORACLE_ENV* e, uint64_t* d, const uint64_t* s, uint32_t a, uint32_t b, size_t n,
                    uint32_t pe) {
  shmem::iput(e->group, e->ctx, d, s, ptrdiff_t(a), ptrdiff_t(b), n, pe);
}
ORACLE_OP op_iput32(ORACLE_ENV* e, uint32_t* d, const uint32_t* s, uint32_t a, uint32_t b, size_t n,
                    uint32_t pe) {
  shmem::iput(e->group, e->ctx, d, s, ptrdiff_t(a), ptrdiff_t(b), n, pe);
}
ORACLE_OP op_iget64(ORACLE_ENV* e, uint64_t* d, const uint64_t* s, uint32_t a, uint32_t b, size_t n,
                    uint32_t pe) {
  shmem::iget(e->group, e->ctx, d, s, ptrdiff_t(a), ptrdiff_t(b), n, pe);
}

template <class Group, class T>
MORI_DEVICE void amo(ORACLE_ENV* e, uint32_t kind, T* d, T v, uint32_t pe) {
  if (e->group.lane() != 0) return;
  if (kind == 0) shmem::atomic_add(e->ctx, d, v, pe);
  if (kind == 1) shmem::atomic_inc(e->ctx, d, pe);
  if (kind == 2) shmem::atomic_xor(e->ctx, d, v, pe);
  if (kind == 3) shmem::atomic_or(e->ctx, d, v, pe);
  if (kind == 4) shmem::atomic_and(e->ctx, d, v, pe);
}
ORACLE_OP op_amo64(ORACLE_ENV* e, uint32_t kind, uint64_t* d, uint64_t v, uint32_t pe) {
  amo(e, kind, d, v, pe);
}
ORACLE_OP op_amo32(ORACLE_ENV* e, uint32_t kind, uint32_t* d, uint32_t v, uint32_t pe) {
  amo(e, kind, d, v, pe);
}
ORACLE_OP op_set64(ORACLE_ENV* e, uint64_t* d, uint64_t v, uint32_t pe) {
  if (e->group.lane() == 0) shmem::atomic_set(e->ctx, d, v, pe);
}
ORACLE_OP op_set32(ORACLE_ENV* e, uint32_t* d, uint32_t v, uint32_t pe) {
  if (e->group.lane() == 0) shmem::atomic_set(e->ctx, d, v, pe);
}
#define ORACLE_FETCH(T)  \
  template <class Group> \
  MORI_DEVICE T
ORACLE_FETCH(uint64_t) op_fetch64(ORACLE_ENV* e, uint64_t* d, uint32_t pe) {
  return e->once([&] { return shmem::atomic_fetch(e->ctx, d, pe); });
}
ORACLE_FETCH(uint64_t) op_swap64(ORACLE_ENV* e, uint64_t* d, uint64_t v, uint32_t pe) {
  return e->once([&] { return shmem::atomic_swap(e->ctx, d, v, pe); });
}
ORACLE_FETCH(uint32_t) op_swap32(ORACLE_ENV* e, uint32_t* d, uint32_t v, uint32_t pe) {
  return uint32_t(e->once([&] { return shmem::atomic_swap(e->ctx, d, v, pe); }));
}
ORACLE_FETCH(uint64_t) op_cas64(ORACLE_ENV* e, uint64_t* d, uint64_t c, uint64_t v, uint32_t pe) {
  return e->once([&] { return shmem::atomic_compare_swap(e->ctx, d, c, v, pe); });
}
ORACLE_FETCH(uint32_t) op_cas32(ORACLE_ENV* e, uint32_t* d, uint32_t c, uint32_t v, uint32_t pe) {
  return uint32_t(e->once([&] { return shmem::atomic_compare_swap(e->ctx, d, c, v, pe); }));
}
ORACLE_FETCH(uint64_t) op_fetch_add64(ORACLE_ENV* e, uint64_t* d, uint64_t v, uint32_t pe) {
  return e->once([&] { return shmem::atomic_fetch_add(e->ctx, d, v, pe); });
}
ORACLE_FETCH(uint32_t) op_fetch_add32(ORACLE_ENV* e, uint32_t* d, uint32_t v, uint32_t pe) {
  return uint32_t(e->once([&] { return shmem::atomic_fetch_add(e->ctx, d, v, pe); }));
}
ORACLE_FETCH(uint64_t) op_fetch_xor64(ORACLE_ENV* e, uint64_t* d, uint64_t v, uint32_t pe) {
  return e->once([&] { return shmem::atomic_fetch_xor(e->ctx, d, v, pe); });
}
ORACLE_FETCH(uint32_t) op_fetch_and32(ORACLE_ENV* e, uint32_t* d, uint32_t v, uint32_t pe) {
  return uint32_t(e->once([&] { return shmem::atomic_fetch_and(e->ctx, d, v, pe); }));
}

ORACLE_OP op_put_signal(ORACLE_ENV* e, uint64_t* d, const uint64_t* s, size_t n, uint64_t* signal, uint64_t v,
                        uint32_t adds, uint32_t pe) {
  shmem::put_signal(e->group, e->ctx, d, s, n, signal, v,
                    adds != 0 ? shmem::SignalOp::add : shmem::SignalOp::set, pe);
}
ORACLE_OP op_wait_equal(ORACLE_ENV* e, uint64_t* signal, uint64_t v, uint32_t from) {
  (void)!shmem::signal_wait_until(e->group, e->ctx, signal, shmem::Cmp::eq, v, from);
}
template <class Group>
MORI_DEVICE bool op_in_set(ORACLE_ENV* e, uint32_t set) {
  return e->teams[set] != 0;
}
template <class Group>
MORI_DEVICE uint32_t op_set_size(ORACLE_ENV* e, uint32_t set) {
  return e->team(set).size;
}
ORACLE_OP op_broadcast64(ORACLE_ENV* e, uint32_t set, int64_t* d, const int64_t* s, size_t n, uint32_t root) {
  (void)!shmem::broadcast(e->group, e->ctx, e->team(set), d, s, n, root);
}
ORACLE_OP op_broadcast32(ORACLE_ENV* e, uint32_t set, int32_t* d, const int32_t* s, size_t n, uint32_t root) {
  (void)!shmem::broadcast(e->group, e->ctx, e->team(set), d, s, n, root);
}
#define ORACLE_COLLECTIVE(name, T, function)                                \
  ORACLE_OP name(ORACLE_ENV* e, uint32_t set, T* d, const T* s, size_t n) { \
    (void)!shmem::function(e->group, e->ctx, e->team(set), d, s, n);        \
  }
ORACLE_COLLECTIVE(op_fcollect64, int64_t, fcollect)
ORACLE_COLLECTIVE(op_fcollect32, int32_t, fcollect)
ORACLE_COLLECTIVE(op_alltoall64, int64_t, alltoall)
ORACLE_COLLECTIVE(op_alltoall32, int32_t, alltoall)
ORACLE_COLLECTIVE(op_sum64, int64_t, sum_reduce)
ORACLE_COLLECTIVE(op_min64, int64_t, min_reduce)
ORACLE_COLLECTIVE(op_xor64, int64_t, xor_reduce)
ORACLE_COLLECTIVE(op_prod32, int32_t, prod_reduce)
ORACLE_COLLECTIVE(op_max32, int32_t, max_reduce)
ORACLE_COLLECTIVE(op_and32, int32_t, and_reduce)
ORACLE_COLLECTIVE(op_sum_double, double, sum_reduce)

#include "program.h"

template <class Group>
MORI_DEVICE void run(const OracleArgs& args, const Group& group) {
  const Env<Group> env{group, {args.world, args.queue}, args.world.rank, args.world.world_size, args.teams};
  oracle_program(&env, global<oracle_memory>(args.memory), args.seed);
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace

MORI_KERNEL(oracle_run, OracleArgs, 256) {
  if (args.scope == 2) {
    run(args, Block{shared_memory<uint32_t>()});
  } else if (args.scope == 1) {
    if (warp_id() == 0) run(args, Warp{});
  } else if (block_lane() == 0) {
    run(args, Thread{});
  }
}

/// How many bytes oracle_memory is, for the host.
MORI_KERNEL(oracle_bytes, OracleArgs, 256) {
  if (block_lane() == 0) *global<uint64_t>(args.memory) = sizeof(oracle_memory);
}

}  // namespace mori
