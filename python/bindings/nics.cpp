// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// mori._core.direct_libraries(): the vendors' libraries that queues of real NICs come from. For `mori
// doctor`.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "src/transport/ibgda/control/direct.hpp"

namespace py = pybind11;

void bind_nics(py::module_& module) {
  module.def(
      "direct_libraries",
      [] {
        size_t count = 0;
        const mori::ibgda::DirectLibrary* rows = mori::ibgda::direct_libraries(&count);
        py::list all;
        for (size_t i = 0; i < count; ++i) {
          py::dict row;
          row["family"] = rows[i].name;
          row["vendor"] = rows[i].vendor;
          row["library"] = rows[i].library;
          row["symbol"] = rows[i].symbol;
          row["problem"] = mori::ibgda::direct_problem(rows[i]);
          all.append(row);
        }
        return all;
      },
      "One dict per family: family, vendor (PCI), library, symbol, problem (empty: queues can be made).");
}
