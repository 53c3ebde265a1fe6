// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Atomics: each operation on a word of its own (the host knows the outcome), and all lanes of all ranks on
// the same words (the totals are known).
#include "conformance.hpp"

namespace mori {

struct AmoCase {
  uint64_t op, type;
  uint64_t dest;         // address in my heap
  uint64_t value, cond;  // bits
  uint64_t pe;
  uint64_t fetched;  // address of a word of this device, for what a fetching operation returns
};

struct ContendArgs {
  World world;
  uint64_t words;    // symmetric: ContendWords
  uint64_t tickets;  // symmetric: uint32_t[n_pes * lanes of a rank * rounds]
  uint64_t taken;    // uint64_t[lanes of this rank]: the sum of what its lane swapped out
  uint64_t rounds;
  uint32_t home;  // the PE whose words all ranks work on
  uint32_t queue;
};

/// Neighbours of 4 bytes, each worked on by another operation.
struct ContendWords {
  uint32_t added, untouched, incremented, compared;
  uint32_t ored, anded, xored, untouched2;
  uint64_t added64, swapped, ticket, ored64;
  float added_float;
  uint32_t untouched3;
  double added_double;
};

namespace conformance {
namespace {
inline namespace MORI_TARGET_NAMESPACE {

enum class Amo : uint64_t {
  fetch,
  set,
  add,
  inc,
  swap,
  compare_swap,
  and_,
  or_,
  xor_,
  fetch_add,
  fetch_inc,
  fetch_and,
  fetch_or,
  fetch_xor,
  fetch_nbi,
  swap_nbi,
  compare_swap_nbi,
  fetch_add_nbi,
  fetch_inc_nbi,
  fetch_and_nbi,
  fetch_or_nbi,
  fetch_xor_nbi
};

template <class T>
MORI_DEVICE T from_bits(uint64_t bits) {
  if constexpr (sizeof(T) == 4) {
    return __builtin_bit_cast(T, uint32_t(bits));
  } else {
    return __builtin_bit_cast(T, bits);
  }
}

template <class T>
MORI_DEVICE_NOINLINE void run_amo(const shmem::Ctx& ctx, const AmoCase& c, T*) {
  T* dest = global<T>(c.dest);
  T* fetched = global<T>(c.fetched);
  const T value = from_bits<T>(c.value), cond = from_bits<T>(c.cond);
  const uint32_t pe = uint32_t(c.pe);
  switch (Amo(c.op)) {
    case Amo::fetch:
      *fetched = shmem::atomic_fetch(ctx, dest, pe);
      break;
    case Amo::set:
      shmem::atomic_set(ctx, dest, value, pe);
      break;
    case Amo::add:
      shmem::atomic_add(ctx, dest, value, pe);
      break;
    case Amo::swap:
      *fetched = shmem::atomic_swap(ctx, dest, value, pe);
      break;
    case Amo::fetch_add:
      *fetched = shmem::atomic_fetch_add(ctx, dest, value, pe);
      break;
    case Amo::fetch_nbi:
      shmem::atomic_fetch_nbi(ctx, fetched, dest, pe);
      break;
    case Amo::swap_nbi:
      shmem::atomic_swap_nbi(ctx, fetched, dest, value, pe);
      break;
    case Amo::fetch_add_nbi:
      shmem::atomic_fetch_add_nbi(ctx, fetched, dest, value, pe);
      break;
    default:
      if constexpr (!kIsFloat<T>) {
        switch (Amo(c.op)) {
          case Amo::inc:
            shmem::atomic_inc(ctx, dest, pe);
            break;
          case Amo::compare_swap:
            *fetched = shmem::atomic_compare_swap(ctx, dest, cond, value, pe);
            break;
          case Amo::and_:
            shmem::atomic_and(ctx, dest, value, pe);
            break;
          case Amo::or_:
            shmem::atomic_or(ctx, dest, value, pe);
            break;
          case Amo::xor_:
            shmem::atomic_xor(ctx, dest, value, pe);
            break;
          case Amo::fetch_inc:
            *fetched = shmem::atomic_fetch_inc(ctx, dest, pe);
            break;
          case Amo::fetch_and:
            *fetched = shmem::atomic_fetch_and(ctx, dest, value, pe);
            break;
          case Amo::fetch_or:
            *fetched = shmem::atomic_fetch_or(ctx, dest, value, pe);
            break;
          case Amo::fetch_xor:
            *fetched = shmem::atomic_fetch_xor(ctx, dest, value, pe);
            break;
          case Amo::compare_swap_nbi:
            shmem::atomic_compare_swap_nbi(ctx, fetched, dest, cond, value, pe);
            break;
          case Amo::fetch_inc_nbi:
            shmem::atomic_fetch_inc_nbi(ctx, fetched, dest, pe);
            break;
          case Amo::fetch_and_nbi:
            shmem::atomic_fetch_and_nbi(ctx, fetched, dest, value, pe);
            break;
          case Amo::fetch_or_nbi:
            shmem::atomic_fetch_or_nbi(ctx, fetched, dest, value, pe);
            break;
          case Amo::fetch_xor_nbi:
            shmem::atomic_fetch_xor_nbi(ctx, fetched, dest, value, pe);
            break;
          default:
            break;
        }
      }
  }
  shmem::quiet(Thread{}, ctx);
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace
}  // namespace conformance

MORI_KERNEL(conformance_amo, CasesArgs, 256) {
  const shmem::Ctx ctx{args.world, args.queue};
  const AmoCase* cases = global<const AmoCase>(args.cases);
  const uint64_t lanes = uint64_t(grid_blocks()) * block_lanes();
  for (uint64_t i = uint64_t(block_id()) * block_lanes() + block_lane(); i < args.count; i += lanes) {
    conformance::with_type(conformance::AmoTypes{}, cases[i].type,
                           [&](auto* type) { conformance::run_amo(ctx, cases[i], type); });
  }
}

/// All lanes of all ranks on the words of `home`. Every lane has a number of its own, from 1 on.
MORI_KERNEL(conformance_contend, ContendArgs, 256) {
  const shmem::Ctx ctx{args.world, args.queue};
  ContendWords* words = global<ContendWords>(args.words);
  const uint32_t lane = block_id() * block_lanes() + block_lane(), lanes = grid_blocks() * block_lanes();
  const uint32_t number = 1 + shmem::my_pe(ctx) * lanes + lane, home = args.home;
  uint64_t taken = 0;
  for (uint64_t round = 0; round < args.rounds; ++round) {
    shmem::atomic_add(ctx, &words->added, number, home);
    shmem::atomic_inc(ctx, &words->incremented, home);
    for (uint32_t seen = shmem::atomic_fetch(ctx, &words->compared, home), attempt = 0;; ++attempt) {
      const uint32_t found = shmem::atomic_compare_swap(ctx, &words->compared, seen, seen + 3, home);
      if (found == seen) break;
      seen = found;
      pause(attempt);
    }
    shmem::atomic_or(ctx, &words->ored, 1u << number % 32, home);
    shmem::atomic_and(ctx, &words->anded, ~(1u << number % 32), home);
    shmem::atomic_xor(ctx, &words->xored, number, home);
    shmem::atomic_add(ctx, &words->added64, uint64_t(number) << 32 | 1, home);
    taken += shmem::atomic_swap(ctx, &words->swapped, uint64_t(number) + round * 1000, home);
    const uint64_t ticket = shmem::atomic_fetch_inc(ctx, &words->ticket, home);
    shmem::atomic_inc(ctx, global<uint32_t>(args.tickets) + ticket, home);
    shmem::atomic_or(ctx, &words->ored64, uint64_t(1) << number % 64, home);
    shmem::atomic_add(ctx, &words->added_float, 1.0f, home);
    shmem::atomic_add(ctx, &words->added_double, 0.5, home);
  }
  global<uint64_t>(args.taken)[lane] = taken;
  shmem::quiet(Thread{}, ctx);
}

}  // namespace mori
