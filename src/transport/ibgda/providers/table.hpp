// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The NIC families, and the choice of one at run time. A family is a row here and a folder beside this file
// (docs/ibgda.md, "A NIC family").
#pragma once
#include "src/transport/ibgda/providers/bnxt_re/bnxt_re.hpp"
#include "src/transport/ibgda/providers/ionic/ionic.hpp"
#include "src/transport/ibgda/providers/mlx5/mlx5.hpp"

namespace mori::ibgda {
inline namespace MORI_TARGET_NAMESPACE {

/// visit(Family{}) for the struct of a family; nothing for Family::none.
template <class Visit>
MORI_DEVICE void with_family(Family family, Visit visit) {
  switch (family) {
    case Family::mlx5:
      visit(Mlx5{});
      break;
    case Family::bnxt_re:
      visit(BnxtRe{});
      break;
    case Family::ionic:
      visit(Ionic{});
      break;
    case Family::none:
      break;
  }
}

/// A family as the queue algorithm uses it, chosen at run time: the algorithm is compiled once.
struct AnyFamily {
  Family number;

  MORI_DEVICE static AnyFamily of(const Queue& queue) { return {queue.family}; }
  MORI_DEVICE uint32_t gap() const {
    uint32_t units_free = 0;
    with_family(number, [&](auto f) { units_free = f.kGap; });
    return units_free;
  }
  MORI_DEVICE bool publishes_each() const {
    bool each = false;
    with_family(number, [&](auto f) { each = f.kPublishesEach; });
    return each;
  }
  MORI_DEVICE uint32_t units(const Request& request) const {
    uint32_t count = 0;
    with_family(number, [&](auto f) { count = f.units(request); });
    return count;
  }
  MORI_DEVICE void encode(const Queue& queue, uint64_t position, const Request& request) const {
    with_family(number, [&](auto f) { f.encode(queue, position, request); });
  }
  MORI_DEVICE void publish(Queue& queue, uint64_t position, const Request& request) const {
    with_family(number, [&](auto f) {
      if constexpr (decltype(f)::kPublishesEach) f.publish(queue, position, request);
    });
  }
  MORI_DEVICE void ring(Queue& queue, uint64_t end) const {
    with_family(number, [&](auto f) { f.ring(queue, end); });
  }
  MORI_DEVICE bool take(Queue& queue, Completion& completion) const {
    bool found = false;
    with_family(number, [&](auto f) { found = f.take(queue, completion); });
    return found;
  }
};

/// Whether the family's NICs execute this operation; others are made of those they have.
MORI_DEVICE bool has(Family family, Op op, uint32_t length) {
  bool yes = false;
  with_family(family, [&](auto f) { yes = f.has(op, length); });
  return yes;
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori::ibgda
