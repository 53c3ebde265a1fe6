// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Waiting for my own symmetric variables, and testing them. Words of integers of 4 and 8 bytes that others
// change by p, a put of one word, an atomic or a signal.
//
// Every wait is bounded: false in all lanes of the group, and the error word says what was waited for; leave
// the kernel then. A wait or test that succeeds is an acquire for all lanes of the group: they see what was
// written before the variable was. `status[i] != 0` leaves element i out; status may be null.
#pragma once
#include "src/shmem/shmem_atomic.hpp"

namespace mori::shmem {
inline namespace MORI_TARGET_NAMESPACE {

template <class T>
MORI_DEVICE bool compare(T left, Cmp cmp, T right) {
  switch (cmp) {
    case Cmp::eq:
      return left == right;
    case Cmp::ne:
      return left != right;
    case Cmp::gt:
      return left > right;
    case Cmp::ge:
      return left >= right;
    case Cmp::lt:
      return left < right;
    case Cmp::le:
      return left <= right;
  }
  return false;
}

template <class T>
MORI_DEVICE T load_variable(const T* ivar) {
  static_assert(kIsInteger<T>, "integers of 4 and 8 bytes");
  return T(load_acquire<Scope::system>(reinterpret_cast<const AtomicWord<T>*>(ivar)));
}

/// Polls *ivar. Callers: one lane.
template <class T>
MORI_DEVICE bool await_variable(const Ctx& ctx, const T* ivar, Cmp cmp, T value, Wait what, uint32_t from_pe,
                                T& seen) {
  return poll_until(
      ctx.world,
      [&] {
        seen = load_variable(ivar);
        return compare(seen, cmp, value);
      },
      uint64_t(value), what, from_pe, seen);
}

// ---- one variable --------------------------------------------------------------------------------------

/// Waits until *ivar compares true with `value`. `from_pe` changes it, as far as is known: for the error
/// word. Callers: the group. Fails: Wait::value, from_pe, value, the value seen.
template <class Group, class T>
[[nodiscard]] MORI_DEVICE bool wait_until(const Group& group, const Ctx& ctx, const T* ivar, Cmp cmp, T value,
                                          uint32_t from_pe = kAnyPe) {
  bool came = true;
  T seen{};
  if (group.lane() == 0) came = await_variable(ctx, ivar, cmp, value, Wait::value, from_pe, seen);
  return group.broadcast(came);
}
template <class Group, class T>
[[nodiscard]] MORI_DEVICE bool test(const Group& group, const Ctx&, const T* ivar, Cmp cmp, T value) {
  const bool is = group.lane() == 0 && compare(load_variable(ivar), cmp, value);
  return group.broadcast(is);
}

/// My own copy of a signal. Callers: one lane. Orders: acquire.
[[nodiscard]] MORI_DEVICE uint64_t signal_fetch(const Ctx&, const uint64_t* sig_addr) {
  return load_variable(sig_addr);
}
/// Waits until my own copy of a signal compares true with `value`; `*seen`, if asked for, is what it was
/// then. Callers: the group. Fails: Wait::signal, from_pe, value, the value seen.
template <class Group>
[[nodiscard]] MORI_DEVICE bool signal_wait_until(const Group& group, const Ctx& ctx, const uint64_t* sig_addr,
                                                 Cmp cmp, uint64_t value, uint32_t from_pe = kAnyPe,
                                                 uint64_t* seen = nullptr) {
  bool came = true;
  uint64_t last = 0;
  if (group.lane() == 0) came = await_variable(ctx, sig_addr, cmp, value, Wait::signal, from_pe, last);
  came = group.broadcast(came);
  if (seen != nullptr) *seen = group.broadcast_word(last);
  return came;
}

// ---- several variables ---------------------------------------------------------------------------------
// values_of(i) is what element i is compared with: one value for all, or an array (the _vector forms).

template <class Group, class T, class Values>
MORI_DEVICE bool await_all(const Group& group, const Ctx& ctx, const T* ivars, size_t nelems,
                           const int* status, Cmp cmp, Values values_of) {
  bool came = true;
  for (size_t i = group.lane(); i < nelems && came; i += group.lanes()) {
    T seen{};
    if (status != nullptr && status[i] != 0) continue;
    came = await_variable(ctx, ivars + i, cmp, values_of(i), Wait::value, kAnyPe, seen);
  }
  return group.all(came);
}
template <class Group, class T, class Values>
MORI_DEVICE bool are_all(const Group& group, const T* ivars, size_t nelems, const int* status, Cmp cmp,
                         Values values_of) {
  bool are = true;
  for (size_t i = group.lane(); i < nelems && are; i += group.lanes())
    are = (status != nullptr && status[i] != 0) || compare(load_variable(ivars + i), cmp, values_of(i));
  return group.all(are);
}

/// The first element that is not left out and compares true; kNone if there is none. `left`: whether any is
/// not left out. Callers: one lane.
template <class T, class Values>
MORI_DEVICE size_t find_one(const T* ivars, size_t nelems, const int* status, Cmp cmp, Values values_of,
                            bool& left) {
  left = false;
  for (size_t i = 0; i < nelems; ++i) {
    if (status != nullptr && status[i] != 0) continue;
    left = true;
    if (compare(load_variable(ivars + i), cmp, values_of(i))) return i;
  }
  return kNone;
}
template <class Group, class T, class Values>
MORI_DEVICE bool await_any(const Group& group, const Ctx& ctx, const T* ivars, size_t nelems,
                           const int* status, Cmp cmp, Values values_of, size_t& index) {
  bool came = true;
  size_t found = kNone;
  if (group.lane() == 0) {
    const uint64_t nothing = 0;
    bool left = false;
    const auto look = [&] {
      found = find_one(ivars, nelems, status, cmp, values_of, left);
      return found != kNone || !left;
    };
    came = poll_until(ctx.world, look, 1, Wait::value, kAnyPe, nothing);
  }
  if (!group.broadcast(came)) return false;
  index = size_t(group.broadcast_word(found));
  return true;
}

/// Indices of the elements that compare true, and how many. Callers: one lane.
template <class T, class Values>
MORI_DEVICE size_t find_some(const T* ivars, size_t nelems, size_t* indices, const int* status, Cmp cmp,
                             Values values_of, bool& left) {
  size_t count = 0;
  left = false;
  for (size_t i = 0; i < nelems; ++i) {
    if (status != nullptr && status[i] != 0) continue;
    left = true;
    if (compare(load_variable(ivars + i), cmp, values_of(i))) indices[count++] = i;
  }
  return count;
}
template <class Group, class T, class Values>
MORI_DEVICE bool await_some(const Group& group, const Ctx& ctx, const T* ivars, size_t nelems,
                            size_t* indices, const int* status, Cmp cmp, Values values_of, size_t& count) {
  bool came = true;
  size_t found = 0;
  if (group.lane() == 0) {
    const uint64_t nothing = 0;
    bool left = false;
    const auto look = [&] {
      found = find_some(ivars, nelems, indices, status, cmp, values_of, left);
      return found != 0 || !left;
    };
    came = poll_until(ctx.world, look, 1, Wait::value, kAnyPe, nothing);
  }
  if (!group.broadcast(came)) return false;
  count = size_t(group.broadcast_word(found));  // all lanes see the indices
  return true;
}

/// What every element is compared with.
template <class T>
struct SameValue {
  T value;
  MORI_DEVICE T operator()(size_t) const { return value; }
};
template <class T>
struct EachValue {
  const T* values;
  MORI_DEVICE T operator()(size_t i) const { return values[i]; }
};

/// Waits for all elements that are not left out. Callers: the group.
template <class Group, class T>
[[nodiscard]] MORI_DEVICE bool wait_until_all(const Group& group, const Ctx& ctx, const T* ivars,
                                              size_t nelems, const int* status, Cmp cmp, T value) {
  return await_all(group, ctx, ivars, nelems, status, cmp, SameValue<T>{value});
}
/// Waits for one of them: `index`, kNone where all are left out. On failure `index` stays as it was.
template <class Group, class T>
[[nodiscard]] MORI_DEVICE bool wait_until_any(const Group& group, const Ctx& ctx, const T* ivars,
                                              size_t nelems, const int* status, Cmp cmp, T value,
                                              size_t& index) {
  return await_any(group, ctx, ivars, nelems, status, cmp, SameValue<T>{value}, index);
}
/// Waits for at least one: their `indices`, ascending, and `count`, 0 where all are left out. `indices`:
/// size_t[nelems] that all lanes can read.
template <class Group, class T>
[[nodiscard]] MORI_DEVICE bool wait_until_some(const Group& group, const Ctx& ctx, const T* ivars,
                                               size_t nelems, size_t* indices, const int* status, Cmp cmp,
                                               T value, size_t& count) {
  return await_some(group, ctx, ivars, nelems, indices, status, cmp, SameValue<T>{value}, count);
}
template <class Group, class T>
[[nodiscard]] MORI_DEVICE bool wait_until_all_vector(const Group& group, const Ctx& ctx, const T* ivars,
                                                     size_t nelems, const int* status, Cmp cmp,
                                                     const T* values) {
  return await_all(group, ctx, ivars, nelems, status, cmp, EachValue<T>{values});
}
template <class Group, class T>
[[nodiscard]] MORI_DEVICE bool wait_until_any_vector(const Group& group, const Ctx& ctx, const T* ivars,
                                                     size_t nelems, const int* status, Cmp cmp,
                                                     const T* values, size_t& index) {
  return await_any(group, ctx, ivars, nelems, status, cmp, EachValue<T>{values}, index);
}
template <class Group, class T>
[[nodiscard]] MORI_DEVICE bool wait_until_some_vector(const Group& group, const Ctx& ctx, const T* ivars,
                                                      size_t nelems, size_t* indices, const int* status,
                                                      Cmp cmp, const T* values, size_t& count) {
  return await_some(group, ctx, ivars, nelems, indices, status, cmp, EachValue<T>{values}, count);
}

/// Whether all elements that are not left out compare true; so where all are left out. Callers: the group.
template <class Group, class T>
[[nodiscard]] MORI_DEVICE bool test_all(const Group& group, const Ctx&, const T* ivars, size_t nelems,
                                        const int* status, Cmp cmp, T value) {
  return are_all(group, ivars, nelems, status, cmp, SameValue<T>{value});
}
template <class Group, class T>
[[nodiscard]] MORI_DEVICE bool test_all_vector(const Group& group, const Ctx&, const T* ivars, size_t nelems,
                                               const int* status, Cmp cmp, const T* values) {
  return are_all(group, ivars, nelems, status, cmp, EachValue<T>{values});
}
/// An element that compares true, or kNone. Callers: the group.
template <class Group, class T>
[[nodiscard]] MORI_DEVICE size_t test_any(const Group& group, const Ctx&, const T* ivars, size_t nelems,
                                          const int* status, Cmp cmp, T value) {
  bool left;
  return size_t(group.broadcast_word(
      group.lane() == 0 ? find_one(ivars, nelems, status, cmp, SameValue<T>{value}, left) : kNone));
}
template <class Group, class T>
[[nodiscard]] MORI_DEVICE size_t test_any_vector(const Group& group, const Ctx&, const T* ivars,
                                                 size_t nelems, const int* status, Cmp cmp, const T* values) {
  bool left;
  return size_t(group.broadcast_word(
      group.lane() == 0 ? find_one(ivars, nelems, status, cmp, EachValue<T>{values}, left) : kNone));
}
/// How many compare true, and their `indices`. Callers: the group.
template <class Group, class T>
[[nodiscard]] MORI_DEVICE size_t test_some(const Group& group, const Ctx&, const T* ivars, size_t nelems,
                                           size_t* indices, const int* status, Cmp cmp, T value) {
  bool left;
  return size_t(group.broadcast_word(
      group.lane() == 0 ? find_some(ivars, nelems, indices, status, cmp, SameValue<T>{value}, left) : 0));
}
template <class Group, class T>
[[nodiscard]] MORI_DEVICE size_t test_some_vector(const Group& group, const Ctx&, const T* ivars,
                                                  size_t nelems, size_t* indices, const int* status, Cmp cmp,
                                                  const T* values) {
  bool left;
  return size_t(group.broadcast_word(
      group.lane() == 0 ? find_some(ivars, nelems, indices, status, cmp, EachValue<T>{values}, left) : 0));
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori::shmem
