// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// program.h on an OpenSHMEM 1.4 library: oshmem FOLDER FIRST_SEED SEEDS. Each PE appends its memory to
// FOLDER/pe<N>, seed after seed. 1.4 has neither put with signal nor teams: both are made of what it has.
#include <shmem.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct oracle_env {
  uint32_t me, n;
};
#define ORACLE_FUNCTION static
#define ORACLE_ENV const struct oracle_env
#define ORACLE_OP static void

static long* sync_words;  // of the collectives; alternates
static void* work;
static int turn;

static long* next_sync(void) { return sync_words + (turn++ % 2) * SHMEM_SYNC_SIZE; }

ORACLE_OP op_store(ORACLE_ENV* e, uint64_t* to, uint64_t value) { *to = value, (void)e; }
ORACLE_OP op_store_double(ORACLE_ENV* e, double* to, double value) { *to = value, (void)e; }
ORACLE_OP op_quiet(ORACLE_ENV* e) { shmem_quiet(), (void)e; }
ORACLE_OP op_barrier(ORACLE_ENV* e) { shmem_barrier_all(), (void)e; }
ORACLE_OP op_put64(ORACLE_ENV* e, uint64_t* d, const uint64_t* s, size_t n, int pe) {
  (void)e, shmem_put64(d, s, n, pe);
}
ORACLE_OP op_put32(ORACLE_ENV* e, uint32_t* d, const uint32_t* s, size_t n, int pe) {
  (void)e, shmem_put32(d, s, n, pe);
}
ORACLE_OP op_putmem(ORACLE_ENV* e, void* d, const void* s, size_t n, int pe) {
  (void)e, shmem_putmem(d, s, n, pe);
}
ORACLE_OP op_get64(ORACLE_ENV* e, uint64_t* d, const uint64_t* s, size_t n, int pe) {
  (void)e, shmem_get64(d, s, n, pe);
}
ORACLE_OP op_getmem(ORACLE_ENV* e, void* d, const void* s, size_t n, int pe) {
  (void)e, shmem_getmem(d, s, n, pe);
}
ORACLE_OP op_p64(ORACLE_ENV* e, uint64_t* d, uint64_t v, int pe) { (void)e, shmem_ulong_p(d, v, pe); }
ORACLE_OP op_p32(ORACLE_ENV* e, uint32_t* d, uint32_t v, int pe) { (void)e, shmem_uint_p(d, v, pe); }
static uint64_t op_g64(ORACLE_ENV* e, const uint64_t* s, int pe) { return (void)e, shmem_ulong_g(s, pe); }
ORACLE_OP op_iput64(ORACLE_ENV* e, uint64_t* d, const uint64_t* s, ptrdiff_t a, ptrdiff_t b, size_t n,
                    int pe) {
  (void)e, shmem_iput64(d, s, a, b, n, pe);
}
ORACLE_OP op_iput32(ORACLE_ENV* e, uint32_t* d, const uint32_t* s, ptrdiff_t a, ptrdiff_t b, size_t n,
                    int pe) {
  (void)e, shmem_iput32(d, s, a, b, n, pe);
}
ORACLE_OP op_iget64(ORACLE_ENV* e, uint64_t* d, const uint64_t* s, ptrdiff_t a, ptrdiff_t b, size_t n,
                    int pe) {
  (void)e, shmem_iget64(d, s, a, b, n, pe);
}

ORACLE_OP op_amo64(ORACLE_ENV* e, uint32_t kind, uint64_t* d, uint64_t v, int pe) {
  (void)e;
  if (kind == 0) shmem_ulong_atomic_add(d, v, pe);
  if (kind == 1) shmem_ulong_atomic_inc(d, pe);
  if (kind == 2) shmem_ulong_atomic_xor(d, v, pe);
  if (kind == 3) shmem_ulong_atomic_or(d, v, pe);
  if (kind == 4) shmem_ulong_atomic_and(d, v, pe);
}
ORACLE_OP op_amo32(ORACLE_ENV* e, uint32_t kind, uint32_t* d, uint32_t v, int pe) {
  (void)e;
  if (kind == 0) shmem_uint_atomic_add(d, v, pe);
  if (kind == 1) shmem_uint_atomic_inc(d, pe);
  if (kind == 2) shmem_uint_atomic_xor(d, v, pe);
  if (kind == 3) shmem_uint_atomic_or(d, v, pe);
  if (kind == 4) shmem_uint_atomic_and(d, v, pe);
}
ORACLE_OP op_set64(ORACLE_ENV* e, uint64_t* d, uint64_t v, int pe) {
  (void)e, shmem_ulong_atomic_set(d, v, pe);
}
ORACLE_OP op_set32(ORACLE_ENV* e, uint32_t* d, uint32_t v, int pe) {
  (void)e, shmem_uint_atomic_set(d, v, pe);
}
static uint64_t op_fetch64(ORACLE_ENV* e, uint64_t* d, int pe) {
  return (void)e, shmem_ulong_atomic_fetch(d, pe);
}
static uint64_t op_swap64(ORACLE_ENV* e, uint64_t* d, uint64_t v, int pe) {
  return (void)e, shmem_ulong_atomic_swap(d, v, pe);
}
static uint32_t op_swap32(ORACLE_ENV* e, uint32_t* d, uint32_t v, int pe) {
  return (void)e, shmem_uint_atomic_swap(d, v, pe);
}
static uint64_t op_cas64(ORACLE_ENV* e, uint64_t* d, uint64_t c, uint64_t v, int pe) {
  return (void)e, shmem_ulong_atomic_compare_swap(d, c, v, pe);
}
// Of Open MPI 4.1.4 over UCX the 32-bit compare_swap writes behind its result on the stack, and fetching
// bitwise operations leave wrong values. These words have one writer, so a fetch and a set will do.
static uint32_t op_cas32(ORACLE_ENV* e, uint32_t* d, uint32_t c, uint32_t v, int pe) {
  // Open MPI 4.1.4's 32-bit compare_swap writes behind its result on the stack; the word has one writer, so
  // two will do.
  const uint32_t found = shmem_uint_atomic_fetch(d, pe);
  if (found == c) shmem_uint_atomic_set(d, v, pe);
  return (void)e, found;
}
static uint64_t op_fetch_add64(ORACLE_ENV* e, uint64_t* d, uint64_t v, int pe) {
  return (void)e, shmem_ulong_atomic_fetch_add(d, v, pe);
}
static uint32_t op_fetch_add32(ORACLE_ENV* e, uint32_t* d, uint32_t v, int pe) {
  return (void)e, shmem_uint_atomic_fetch_add(d, v, pe);
}
static uint64_t op_fetch_xor64(ORACLE_ENV* e, uint64_t* d, uint64_t v, int pe) {
  const uint64_t found = shmem_ulong_atomic_fetch(d, pe);
  shmem_ulong_atomic_set(d, found ^ v, pe);
  return (void)e, found;
}
static uint32_t op_fetch_and32(ORACLE_ENV* e, uint32_t* d, uint32_t v, int pe) {
  const uint32_t found = shmem_uint_atomic_fetch(d, pe);
  shmem_uint_atomic_set(d, found & v, pe);
  return (void)e, found;
}

ORACLE_OP op_put_signal(ORACLE_ENV* e, uint64_t* d, const uint64_t* s, size_t n, uint64_t* signal, uint64_t v,
                        uint32_t adds, int pe) {
  (void)e;
  shmem_put64(d, s, n, pe);
  shmem_fence();
  if (adds) {
    shmem_ulong_atomic_add(signal, v, pe);
  } else {
    shmem_ulong_atomic_set(signal, v, pe);
  }
}
ORACLE_OP op_wait_equal(ORACLE_ENV* e, uint64_t* signal, uint64_t v, uint32_t from) {
  (void)e, (void)from;
  shmem_ulong_wait_until(signal, SHMEM_CMP_EQ, v);
}

struct active_set {
  int start, log, size;
};
static struct active_set set_of(ORACLE_ENV* e, uint32_t set) {
  const struct active_set all = {0, 0, (int)e->n}, even = {0, 1, e->n > 2 ? 2 : 1},
                          behind = {1, 0, (int)e->n - 1};
  return set == 0 ? all : set == 1 ? even : behind;
}
static int op_in_set(ORACLE_ENV* e, uint32_t set) {
  const struct active_set s = set_of(e, set);
  for (int i = 0; i < s.size; ++i)
    if (s.start + (i << s.log) == (int)e->me) return 1;
  return 0;
}
static uint32_t op_set_size(ORACLE_ENV* e, uint32_t set) { return (uint32_t)set_of(e, set).size; }

#define SET const struct active_set a = set_of(e, set)
ORACLE_OP op_broadcast64(ORACLE_ENV* e, uint32_t set, int64_t* d, const int64_t* s, size_t n, uint32_t root) {
  SET;
  shmem_broadcast64(d, s, n, (int)root, a.start, a.log, a.size, next_sync());
  if (a.start + ((int)root << a.log) == (int)e->me) memcpy(d, s, n * sizeof *d);  // 1.4 leaves out the root
}
ORACLE_OP op_broadcast32(ORACLE_ENV* e, uint32_t set, int32_t* d, const int32_t* s, size_t n, uint32_t root) {
  SET;
  shmem_broadcast32(d, s, n, (int)root, a.start, a.log, a.size, next_sync());
  if (a.start + ((int)root << a.log) == (int)e->me) memcpy(d, s, n * sizeof *d);
}
ORACLE_OP op_fcollect64(ORACLE_ENV* e, uint32_t set, int64_t* d, const int64_t* s, size_t n) {
  SET;
  shmem_fcollect64(d, s, n, a.start, a.log, a.size, next_sync());
}
ORACLE_OP op_fcollect32(ORACLE_ENV* e, uint32_t set, int32_t* d, const int32_t* s, size_t n) {
  SET;
  shmem_fcollect32(d, s, n, a.start, a.log, a.size, next_sync());
}
ORACLE_OP op_alltoall64(ORACLE_ENV* e, uint32_t set, int64_t* d, const int64_t* s, size_t n) {
  SET;
  shmem_alltoall64(d, s, n, a.start, a.log, a.size, next_sync());
}
ORACLE_OP op_alltoall32(ORACLE_ENV* e, uint32_t set, int32_t* d, const int32_t* s, size_t n) {
  SET;
  shmem_alltoall32(d, s, n, a.start, a.log, a.size, next_sync());
}
#define REDUCTION(name, type, function)                                              \
  ORACLE_OP name(ORACLE_ENV* e, uint32_t set, type* d, const type* s, size_t n) {    \
    SET;                                                                             \
    function(d, (type*)s, (int)n, a.start, a.log, a.size, (void*)work, next_sync()); \
  }
REDUCTION(op_sum64, int64_t, shmem_long_sum_to_all)
REDUCTION(op_min64, int64_t, shmem_long_min_to_all)
REDUCTION(op_xor64, int64_t, shmem_long_xor_to_all)
REDUCTION(op_prod32, int32_t, shmem_int_prod_to_all)
REDUCTION(op_max32, int32_t, shmem_int_max_to_all)
REDUCTION(op_and32, int32_t, shmem_int_and_to_all)
REDUCTION(op_sum_double, double, shmem_double_sum_to_all)

#include "program.h"

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  shmem_init();
  const struct oracle_env env = {(uint32_t)shmem_my_pe(), (uint32_t)shmem_n_pes()};
  struct oracle_memory* memory = shmem_malloc(sizeof *memory);
  sync_words = shmem_malloc(2 * SHMEM_SYNC_SIZE * sizeof *sync_words);
  work = shmem_malloc(8 * (kPes * kElements + SHMEM_REDUCE_MIN_WRKDATA_SIZE));
  char path[4096];
  snprintf(path, sizeof path, "%s/pe%u", argv[1], env.me);
  FILE* file = fopen(path, "wb");
  if (memory == NULL || sync_words == NULL || work == NULL || file == NULL) return 3;
  for (uint64_t k = 0; k < (uint64_t)atoi(argv[3]); ++k) {
    memset(memory, 0, sizeof *memory);
    for (int i = 0; i < 2 * SHMEM_SYNC_SIZE; ++i) sync_words[i] = SHMEM_SYNC_VALUE;
    shmem_barrier_all();
    oracle_program(&env, memory, (uint64_t)atoi(argv[2]) + k);
    if (fwrite(memory, sizeof *memory, 1, file) != 1) return 4;
    shmem_barrier_all();
  }
  fclose(file);
  shmem_barrier_all();
  _exit(0);  // shmem_finalize() of Open MPI 4.1.4 with UCX ends in a segmentation fault
}
