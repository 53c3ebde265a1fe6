// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// A random SHMEM program, in the C that C++ understands too: oshmem_main.c runs it on an OpenSHMEM library,
// mori_program.cpp inside a kernel. Whatever the timing, the same seed leaves the same bytes in every PE's
// memory: within a step nobody reads what somebody else writes, words of several writers see only operations
// that commute, and a barrier ends each step.
//
// The includer defines ORACLE_FUNCTION and ORACLE_ENV, and the operations named op_*, which all lanes of a
// group call together.

enum { kPes = 4, kElements = 48, kSteps = 40, kOps = 6, kWords = 8, kSets = 3 };

struct oracle_memory {
  uint64_t wide[2][kPes][kElements];  // [half][writer]: a step writes one half and reads the other
  uint32_t narrow[2][kPes][kElements];
  uint8_t bytes[2][kPes][kElements];
  uint64_t scratch[kElements];  // what gets brought
  uint64_t shared64[kWords];    // worked on by everybody
  uint32_t shared32[kWords];
  uint64_t own64[kPes][kWords];  // [writer]
  uint32_t own32[kPes][kWords];
  uint64_t signals[kPes];  // [writer]
  uint64_t fetched[kSteps][kOps];
  int64_t in64[kPes * kElements], out64[kPes * kElements];
  int32_t in32[kPes * kElements], out32[kPes * kElements];
  double in_double[kElements], out_double[kElements];
};

ORACLE_FUNCTION uint64_t draw(ORACLE_ENV* env, uint64_t* state) {
  (void)env;
  uint64_t z = *state += 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

// Puts into my part of one half, gets from the other half.
ORACLE_FUNCTION void rma_step(ORACLE_ENV* env, struct oracle_memory* m, uint32_t step, uint64_t* mine) {
  const uint32_t me = env->me, to = step % 2, from = 1 - to;
  for (uint32_t k = 0; k < kOps; ++k) {
    const uint64_t kind = draw(env, mine) % 12;
    const uint32_t pe = (uint32_t)(draw(env, mine) % env->n), owner = (uint32_t)(draw(env, mine) % env->n);
    const uint64_t word = draw(env, mine);
    const uint32_t first = (uint32_t)(draw(env, mine) % (kElements / 2));
    const uint32_t second = (uint32_t)(draw(env, mine) % (kElements / 2));
    const uint32_t count = (uint32_t)(draw(env, mine) % (kElements / 2 + 1));
    const uint32_t few = count / 4, a = (uint32_t)(1 + word % 4), b = (uint32_t)(1 + word / 4 % 4);
    switch (kind) {
      case 0:
        op_put64(env, m->wide[to][me] + first, m->wide[from][owner] + second, count, pe);
        break;
      case 1:
        op_put32(env, m->narrow[to][me] + first, m->narrow[from][owner] + second, count, pe);
        break;
      case 2:
        op_putmem(env, m->bytes[to][me] + first, m->bytes[from][owner] + second, count, pe);
        break;
      case 3:
        op_p64(env, m->wide[to][me] + first, word, pe);
        break;
      case 4:
        op_p32(env, m->narrow[to][me] + first, (uint32_t)word, pe);
        break;
      case 5:
        op_iput64(env, m->wide[to][me] + first % 8, m->wide[from][owner] + second % 8, a, b, few, pe);
        break;
      case 6:
        op_iput32(env, m->narrow[to][me] + first % 8, m->narrow[from][owner] + second % 8, b, a, few, pe);
        break;
      case 7:
        op_get64(env, m->scratch + first, m->wide[from][owner] + second, count, pe);
        break;
      case 8:
        op_getmem(env, m->scratch + first, m->bytes[from][owner] + second, count & ~7u, pe);
        break;
      case 9:
        op_iget64(env, m->scratch + first % 8, m->wide[from][owner] + second % 8, a, b, few, pe);
        break;
      case 10:
        op_store(env, &m->fetched[step][k], op_g64(env, m->wide[from][owner] + first, pe));
        break;
      default:
        op_put64(env, m->wide[to][me] + first, m->wide[to][me] + first, 0, pe);
        break;
    }
    op_quiet(env);  // two puts of mine may meet
  }
}

// Words of everybody: what is done to a word in this step commutes. Words of mine at any PE: anything.
ORACLE_FUNCTION void amo_step(ORACLE_ENV* env, struct oracle_memory* m, uint32_t step, uint64_t all,
                              uint64_t* mine) {
  const uint32_t me = env->me;
  for (uint32_t k = 0; k < kOps; ++k) {
    const uint32_t pe = (uint32_t)(draw(env, mine) % env->n), index = (uint32_t)(draw(env, mine) % kWords);
    const uint64_t value = draw(env, mine);
    uint64_t* own64 = m->own64[me] + index;
    uint32_t* own32 = m->own32[me] + index;
    op_amo64(env, (uint32_t)(all >> index * 4 & 15) % 5, m->shared64 + index, value, pe);
    op_amo32(env, (uint32_t)(all >> (index * 4 + 2) & 15) % 5, m->shared32 + index, (uint32_t)(value >> 9),
             pe);
    uint64_t got = 0;
    switch (draw(env, mine) % 10) {
      case 0:
        op_set64(env, own64, value, pe);
        break;
      case 1:
        op_set32(env, own32, (uint32_t)value, pe);
        break;
      case 2:
        got = op_swap64(env, own64, value, pe);
        break;
      case 3:
        got = op_swap32(env, own32, (uint32_t)value, pe);
        break;
      case 4:
        got = op_cas64(env, own64, op_fetch64(env, own64, pe), value, pe);
        break;
      case 5:
        got = op_cas32(env, own32, (uint32_t)(value & 1), (uint32_t)(value >> 7), pe);
        break;
      case 6:
        got = op_fetch_add64(env, own64, value, pe);
        break;
      case 7:
        got = op_fetch_add32(env, own32, (uint32_t)value, pe);
        break;
      case 8:
        got = op_fetch_xor64(env, own64, value, pe);
        break;
      default:
        got = op_fetch_and32(env, own32, (uint32_t)value, pe);
        break;
    }
    op_store(env, &m->fetched[step][k], got);
    op_quiet(env);
  }
}

// Everybody sends to the PE at one distance, and waits for the one at the other side.
ORACLE_FUNCTION void signal_step(ORACLE_ENV* env, struct oracle_memory* m, uint32_t step, uint64_t all,
                                 uint64_t* expected) {
  const uint32_t distance = (uint32_t)(all % env->n), count = (uint32_t)(all >> 8) % (kElements + 1);
  const uint32_t to = (env->me + distance) % env->n, from = (env->me + env->n - distance) % env->n;
  const uint32_t half = step % 2;
  // by SET to a round number, or by ADD to what was there: the writer is the same
  const uint32_t adds = (uint32_t)(all >> 16) % 2;
  const uint64_t value = adds ? 1000 : 1000000 * (uint64_t)(step + 1);
  expected[from] = adds ? expected[from] + value : value;
  op_put_signal(env, m->wide[half][env->me], m->wide[1 - half][env->me], count, m->signals + env->me, value,
                adds, to);
  op_wait_equal(env, m->signals + from, expected[from], from);
  uint64_t sum = 0;
  for (uint32_t i = 0; i < count; ++i) sum = sum * 3 + m->wide[half][from][i];
  op_store(env, &m->fetched[step][0], sum);
}

ORACLE_FUNCTION void fill(ORACLE_ENV* env, struct oracle_memory* m, uint64_t* mine) {
  for (uint32_t i = 0; i < kPes * kElements; ++i) {
    const uint64_t word = draw(env, mine);
    op_store(env, (uint64_t*)m->in64 + i, word);
    if (i % 2 == 0) op_store(env, (uint64_t*)m->in32 + i / 2, word * 5);
    if (i < kElements) op_store_double(env, m->in_double + i, (double)(int)(word % 2001) - 1000);
  }
}

// A collective of all PEs or of some.
ORACLE_FUNCTION void collective_step(ORACLE_ENV* env, struct oracle_memory* m, uint64_t all, uint64_t* mine) {
  const uint32_t set = (uint32_t)(all % kSets), count = (uint32_t)(all >> 8) % (kElements / 2) + 1;
  fill(env, m, mine);
  op_barrier(env);
  if (op_in_set(env, set)) {
    const uint32_t root = (uint32_t)(all >> 20) % op_set_size(env, set);
    switch ((all >> 32) % 13) {
      case 0:
        op_broadcast64(env, set, m->out64, m->in64, count, root);
        break;
      case 1:
        op_broadcast32(env, set, m->out32, m->in32, count, root);
        break;
      case 2:
        op_fcollect64(env, set, m->out64, m->in64, count);
        break;
      case 3:
        op_fcollect32(env, set, m->out32, m->in32, count);
        break;
      case 4:
        op_alltoall64(env, set, m->out64, m->in64, count);
        break;
      case 5:
        op_alltoall32(env, set, m->out32, m->in32, count);
        break;
      case 6:
        op_sum64(env, set, m->out64, m->in64, count);
        break;
      case 7:
        op_prod32(env, set, m->out32, m->in32, count);
        break;
      case 8:
        op_min64(env, set, m->out64, m->in64, count);
        break;
      case 9:
        op_max32(env, set, m->out32, m->in32, count);
        break;
      case 10:
        op_xor64(env, set, m->out64, m->in64, count);
        break;
      case 11:
        op_and32(env, set, m->out32, m->in32, count);
        break;
      default:
        op_sum_double(env, set, m->out_double, m->in_double, count);
        break;
    }
  }
}

ORACLE_FUNCTION void oracle_program(ORACLE_ENV* env, struct oracle_memory* m, uint64_t seed) {
  uint64_t expected[kPes] = {0, 0, 0, 0};
  uint64_t common = seed * 1000003, mine = seed * 7919 + 13 * ((uint64_t)env->me + 1);
  for (uint32_t step = 0; step < kSteps; ++step) {
    const uint64_t kind = draw(env, &common) % 4, all = draw(env, &common);
    if (kind == 0) rma_step(env, m, step, &mine);
    if (kind == 1) amo_step(env, m, step, all, &mine);
    if (kind == 2) signal_step(env, m, step, all, expected);
    if (kind == 3) collective_step(env, m, all, &mine);
    op_barrier(env);
  }
}
