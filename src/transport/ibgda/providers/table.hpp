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

/// Whether the family's NICs execute this operation; others are made of those they have.
MORI_DEVICE bool has(Family family, Op op, uint32_t length) {
  bool yes = false;
  with_family(family, [&](auto f) { yes = f.has(op, length); });
  return yes;
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori::ibgda
