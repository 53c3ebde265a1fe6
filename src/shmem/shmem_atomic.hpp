// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Atomic memory operations on one object of `pe`: atomic with respect to other operations of this file on the
// same object with the same width, by anybody. They order nothing; fence() and quiet() do. Callers: one lane.
//
// Types: integers of 4 and 8 bytes. fetch, set, swap and, beyond OpenSHMEM, add also take float and double.
// A fetching operation returns zeros where there is no way to `pe`; the error word says so.
#pragma once
#include "src/shmem/queue_atomic.hpp"
#include "src/shmem/transport.hpp"

namespace mori::shmem {
inline namespace MORI_TARGET_NAMESPACE {

/// The word that holds a T.
template <size_t kBytes>
struct WordOf;
template <>
struct WordOf<4> {
  using Type = AnyWord32;
  using Value = uint32_t;
};
template <>
struct WordOf<8> {
  using Type = AnyWord64;
  using Value = uint64_t;
};
template <class T>
using AtomicWord = typename WordOf<sizeof(T)>::Type;
template <class T>
using AtomicValue = typename WordOf<sizeof(T)>::Value;
template <class T>
inline constexpr bool kIsInteger = T(1) / T(2) == T(0);

template <class T>
MORI_DEVICE AtomicValue<T> bits(T value) {
  return __builtin_bit_cast(AtomicValue<T>, value);
}
/// What `operation` returns of `pe`'s word, which it changes; on a queue `change` with these operands does
/// the same. `dest` is T* or const T*.
template <class T, class Operation>
MORI_DEVICE T at_word(const Ctx& ctx, const T* dest, uint32_t pe, Change change, T value, T compare,
                      bool fetches, Operation operation) {
  using Word = AtomicWord<T>;
  AtomicValue<T> old = 0;
  Word* mine = reinterpret_cast<Word*>(const_cast<T*>(dest));
  reach(
      ctx, mine, pe, [&](Word* theirs) { old = operation(theirs); },
      [&] {
        old = AtomicValue<T>(
            queue_atomic(ctx, {change, sizeof(T), bits(value), bits(compare)}, dest, pe, fetches));
      });
  return __builtin_bit_cast(T, old);
}
template <Modify M>
inline constexpr Change kChange = M == Modify::exchange  ? Change::set
                                  : M == Modify::bit_and ? Change::bit_and
                                  : M == Modify::bit_or  ? Change::bit_or
                                                         : Change::bit_xor;
template <Modify M, class T>
MORI_DEVICE T modify(const Ctx& ctx, T* dest, T value, uint32_t pe, bool fetches = true) {
  return at_word(ctx, dest, pe, kChange<M>, value, T{}, fetches, [&](AtomicWord<T>* w) {
    return fetch_modify_relaxed<M, Scope::system>(w, AtomicWord<T>(bits(value)));
  });
}

template <class T>
[[nodiscard]] MORI_DEVICE T atomic_fetch(const Ctx& ctx, const T* source, uint32_t pe) {
  return at_word(ctx, source, pe, Change::nothing, T{}, T{}, true,
                 [](AtomicWord<T>* w) { return load_relaxed<Scope::system>(w); });
}
template <class T>
MORI_DEVICE void atomic_set(const Ctx& ctx, T* dest, T value, uint32_t pe) {
  at_word(ctx, dest, pe, Change::set, value, T{}, false, [&](AtomicWord<T>* w) {
    store_relaxed<Scope::system>(w, AtomicWord<T>(bits(value)));
    return AtomicWord<T>(0);
  });
}
template <class T>
[[nodiscard]] MORI_DEVICE T atomic_swap(const Ctx& ctx, T* dest, T value, uint32_t pe) {
  return modify<Modify::exchange>(ctx, dest, value, pe);
}
/// `value` takes the place of what is there if that equals `cond`; returns what was there.
template <class T>
[[nodiscard]] MORI_DEVICE T atomic_compare_swap(const Ctx& ctx, T* dest, T cond, T value, uint32_t pe) {
  static_assert(kIsInteger<T>, "integers only");
  return at_word(ctx, dest, pe, Change::compare_swap, value, cond, true, [&](AtomicWord<T>* w) {
    return compare_swap_relaxed<Scope::system>(w, AtomicWord<T>(bits(cond)), AtomicWord<T>(bits(value)));
  });
}

/// Integers wrap around; a sum of floats is that of some order of the additions.
template <class T>
MORI_DEVICE T add_at(const Ctx& ctx, T* dest, T value, uint32_t pe, bool fetches) {
  constexpr Change kAdd = kIsInteger<T> ? Change::add : Change::add_float;
  return at_word(ctx, dest, pe, kAdd, value, T{}, fetches, [&](AtomicWord<T>* w) {
    if constexpr (kIsInteger<T>) {
      return fetch_add_relaxed<Scope::system>(w, AtomicWord<T>(bits(value)));
    } else {
      AtomicWord<T> seen = load_relaxed<Scope::system>(w);
      for (;;) {
        const T sum = __builtin_bit_cast(T, AtomicValue<T>(seen)) + value;
        const AtomicWord<T> before = compare_swap_relaxed<Scope::system>(w, seen, AtomicWord<T>(bits(sum)));
        if (before == seen) return seen;
        seen = before;
      }
    }
  });
}
template <class T>
[[nodiscard]] MORI_DEVICE T atomic_fetch_add(const Ctx& ctx, T* dest, T value, uint32_t pe) {
  return add_at(ctx, dest, value, pe, true);
}
template <class T>
MORI_DEVICE void atomic_add(const Ctx& ctx, T* dest, T value, uint32_t pe) {
  add_at(ctx, dest, value, pe, false);
}
template <class T>
[[nodiscard]] MORI_DEVICE T atomic_fetch_inc(const Ctx& ctx, T* dest, uint32_t pe) {
  static_assert(kIsInteger<T>, "integers only");
  return atomic_fetch_add(ctx, dest, T(1), pe);
}
template <class T>
MORI_DEVICE void atomic_inc(const Ctx& ctx, T* dest, uint32_t pe) {
  static_assert(kIsInteger<T>, "integers only");
  atomic_add(ctx, dest, T(1), pe);
}

template <class T>
[[nodiscard]] MORI_DEVICE T atomic_fetch_and(const Ctx& ctx, T* dest, T value, uint32_t pe) {
  static_assert(kIsInteger<T>, "integers only");
  return modify<Modify::bit_and>(ctx, dest, value, pe);
}
template <class T>
[[nodiscard]] MORI_DEVICE T atomic_fetch_or(const Ctx& ctx, T* dest, T value, uint32_t pe) {
  static_assert(kIsInteger<T>, "integers only");
  return modify<Modify::bit_or>(ctx, dest, value, pe);
}
template <class T>
[[nodiscard]] MORI_DEVICE T atomic_fetch_xor(const Ctx& ctx, T* dest, T value, uint32_t pe) {
  static_assert(kIsInteger<T>, "integers only");
  return modify<Modify::bit_xor>(ctx, dest, value, pe);
}
template <class T>
MORI_DEVICE void atomic_and(const Ctx& ctx, T* dest, T value, uint32_t pe) {
  static_assert(kIsInteger<T>, "integers only");
  modify<Modify::bit_and>(ctx, dest, value, pe, false);
}
template <class T>
MORI_DEVICE void atomic_or(const Ctx& ctx, T* dest, T value, uint32_t pe) {
  static_assert(kIsInteger<T>, "integers only");
  modify<Modify::bit_or>(ctx, dest, value, pe, false);
}
template <class T>
MORI_DEVICE void atomic_xor(const Ctx& ctx, T* dest, T value, uint32_t pe) {
  static_assert(kIsInteger<T>, "integers only");
  modify<Modify::bit_xor>(ctx, dest, value, pe, false);
}

// ---- non-blocking: *fetch holds the result after quiet() -------------------------------------------------

template <class T>
MORI_DEVICE void atomic_fetch_nbi(const Ctx& ctx, T* fetch, const T* source, uint32_t pe) {
  *fetch = atomic_fetch(ctx, source, pe);
}
template <class T>
MORI_DEVICE void atomic_swap_nbi(const Ctx& ctx, T* fetch, T* dest, T value, uint32_t pe) {
  *fetch = atomic_swap(ctx, dest, value, pe);
}
template <class T>
MORI_DEVICE void atomic_compare_swap_nbi(const Ctx& ctx, T* fetch, T* dest, T cond, T value, uint32_t pe) {
  *fetch = atomic_compare_swap(ctx, dest, cond, value, pe);
}
template <class T>
MORI_DEVICE void atomic_fetch_add_nbi(const Ctx& ctx, T* fetch, T* dest, T value, uint32_t pe) {
  *fetch = atomic_fetch_add(ctx, dest, value, pe);
}
template <class T>
MORI_DEVICE void atomic_fetch_inc_nbi(const Ctx& ctx, T* fetch, T* dest, uint32_t pe) {
  *fetch = atomic_fetch_inc(ctx, dest, pe);
}
template <class T>
MORI_DEVICE void atomic_fetch_and_nbi(const Ctx& ctx, T* fetch, T* dest, T value, uint32_t pe) {
  *fetch = atomic_fetch_and(ctx, dest, value, pe);
}
template <class T>
MORI_DEVICE void atomic_fetch_or_nbi(const Ctx& ctx, T* fetch, T* dest, T value, uint32_t pe) {
  *fetch = atomic_fetch_or(ctx, dest, value, pe);
}
template <class T>
MORI_DEVICE void atomic_fetch_xor_nbi(const Ctx& ctx, T* fetch, T* dest, T value, uint32_t pe) {
  *fetch = atomic_fetch_xor(ctx, dest, value, pe);
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori::shmem
