// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// mori._core.CclCopies: collectives with no kernel.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "src/ops/ccl/ccl_copies.hpp"

namespace py = pybind11;

void bind_ccl(py::module_& module) {
  using mori::ccl::Copies;
  module.attr("CCL_COPIES_BYTES") = sizeof(mori::ccl::CopiesRegion);
  py::class_<Copies>(module, "CclCopies")
      .def(py::init<std::shared_ptr<mori::core::Context>, uint64_t, uint64_t, std::vector<uint32_t>,
                    uint32_t>(),
           py::arg("context"), py::kw_only(), py::arg("region"), py::arg("staging_bytes"), py::arg("ranks"),
           py::arg("index"), py::call_guard<py::gil_scoped_release>())
      .def(
          "run",
          [](Copies& c, uint32_t op, uint64_t source, uint64_t dest, uint64_t count, uint32_t root,
             uint32_t digest,
             uint64_t stream) { c.run(mori::CclOp(op), source, dest, count, root, digest, stream); },
          py::arg("op"), py::arg("source"), py::arg("dest"), py::arg("count"), py::arg("root"),
          py::arg("digest"), py::arg("stream"), py::call_guard<py::gil_scoped_release>());
}
