// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Litmus tests of the memory model: the orders that fence, quiet, put_signal and the waits promise, asked for
// as sharply as possible. Rank 0 writes and rank 1 reads, or both do both. Payload is read with plain loads,
// so that ThreadSanitizer sees which orders are missing.
//
// LITMUS_WEAK takes the order away that a test is about: then it must fail somewhere.
#include "litmus.hpp"

#include <mori/shmem.hpp>

namespace mori {
namespace {
inline namespace MORI_TARGET_NAMESPACE {

MORI_DEVICE void order_puts(const shmem::Ctx& ctx) {
#if !defined(LITMUS_WEAK)
  shmem::fence(Thread{}, ctx);
#else
  (void)ctx;
#endif
}
MORI_DEVICE void complete_puts(const shmem::Ctx& ctx) {
#if !defined(LITMUS_WEAK)
  shmem::quiet(Thread{}, ctx);
#else
  (void)ctx;
#endif
}

MORI_DEVICE void publish(const LitmusArgs& a, const shmem::Ctx& ctx, LitmusWords* w, uint64_t round,
                         const uint64_t* source) {
  switch (a.test) {
    case Litmus::message:
      for (uint32_t i = 0; i < a.words_of_data; ++i) shmem::p(ctx, w->data + i, round, 1);
      order_puts(ctx);
      shmem::p(ctx, &w->flag, round, 1);
      break;
    case Litmus::put_fence:
      shmem::put(Thread{}, ctx, w->data, source, a.words_of_data, 1);
      order_puts(ctx);
      shmem::put(Thread{}, ctx, &w->flag, source, 1, 1);
      break;
    case Litmus::put_amo:
      shmem::put_nbi(Thread{}, ctx, w->data, source, a.words_of_data, 1);
      order_puts(ctx);
      shmem::atomic_add(ctx, &w->flag, uint64_t(1), 1);
      break;
    default:
#if defined(LITMUS_WEAK)
      shmem::put(Thread{}, ctx, w->data, source, a.words_of_data, 1);
      shmem::p(ctx, &w->flag, round, 1);
#else
      if (round % 2 != 0) {
        shmem::put_signal(Thread{}, ctx, w->data, source, a.words_of_data, &w->flag, round,
                          shmem::SignalOp::set, 1);
      } else {
        shmem::put_signal_nbi(Thread{}, ctx, w->data, source, a.words_of_data, &w->flag, 1,
                              shmem::SignalOp::add, 1);
      }
#endif
  }
}

MORI_DEVICE void one_way(const LitmusArgs& a, const shmem::Ctx& ctx, LitmusWords* w, uint32_t block) {
  uint64_t wrong = 0;
  uint64_t* source = global<uint64_t>(a.words) + 4096 + 16 * block;  // behind all words; a NIC can read it
  for (uint64_t round = 1; round <= a.rounds; ++round) {
    if (shmem::my_pe(ctx) == 0) {
      for (uint32_t i = 0; i < a.words_of_data; ++i) source[i] = round;
      publish(a, ctx, w, round, source);
      if (!shmem::signal_wait_until(Thread{}, ctx, &w->ack, shmem::Cmp::ge, round, 1)) return;
    } else {
      const bool came = a.test == Litmus::put_signal
                            ? shmem::signal_wait_until(Thread{}, ctx, &w->flag, shmem::Cmp::ge, round, 0)
                            : shmem::wait_until(Thread{}, ctx, &w->flag, shmem::Cmp::ge, round, 0);
      if (!came) return;
      for (uint32_t i = 0; i < a.words_of_data; ++i) wrong += w->data[i] != round;
      shmem::fence(Thread{}, ctx);  // what was read is read before the next round overwrites it
      shmem::signal_op(ctx, &w->ack, round, shmem::SignalOp::set, 0);
    }
  }
  global<uint64_t>(a.results)[block] = wrong;
}

MORI_DEVICE void store_buffer(const LitmusArgs& a, const shmem::Ctx& ctx, LitmusWords* w, uint32_t block) {
  const uint32_t other = 1 - shmem::my_pe(ctx);
  uint8_t* missed = global<uint8_t>(a.results) + block * a.rounds;
  for (uint64_t round = 1; round <= a.rounds; ++round) {
    shmem::signal_op(ctx, &w->turn, round, shmem::SignalOp::set, other);
    if (!shmem::signal_wait_until(Thread{}, ctx, &w->turn, shmem::Cmp::ge, round, other)) return;
    shmem::p(ctx, w->data, round, other);
    complete_puts(ctx);
    missed[round - 1] = load_relaxed<Scope::system>(w->data) < round;
  }
}

// Ranks 0 and 1 count x and y up; rank 2 reads x, then y, and rank 3 y, then x.
MORI_DEVICE void independent(const LitmusArgs& a, const shmem::Ctx& ctx, LitmusWords* w, uint32_t block) {
  const uint32_t me = shmem::my_pe(ctx);
  uint32_t* seen = global<uint32_t>(a.results) + 2 * block * a.rounds;
  for (uint64_t round = 1; round <= a.rounds; ++round) {
    if (me < 2) {
      shmem::p(ctx, w->data, round, me + 2);  // x lies at rank 2, y at rank 3
    } else {
      seen[2 * (round - 1)] = uint32_t(load_relaxed<Scope::system>(w->data));
      complete_puts(ctx);
      seen[2 * (round - 1) + 1] = uint32_t(shmem::g(ctx, w->data, 5 - me));
    }
  }
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace

/// One lane of each block plays.
MORI_KERNEL(litmus_run, LitmusArgs, 256) {
  if (block_lane() != 0) return;
  const shmem::Ctx ctx{args.world};
  LitmusWords* words = global<LitmusWords>(args.words) + block_id();
  if (args.test == Litmus::store_buffer) {
    store_buffer(args, ctx, words, block_id());
  } else if (args.test == Litmus::independent) {
    independent(args, ctx, words, block_id());
  } else {
    one_way(args, ctx, words, block_id());
  }
}

}  // namespace mori
