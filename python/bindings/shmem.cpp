// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// mori._core.ShmemBarrier: the barrier of all ranks in stream order.
#include <pybind11/pybind11.h>

#include "src/shmem/shmem_barrier.hpp"

namespace py = pybind11;

void bind_shmem(py::module_& module) {
  using mori::shmem::StreamBarrier;
  py::class_<StreamBarrier>(module, "ShmemBarrier")
      .def(py::init<std::shared_ptr<mori::core::Context>, uint64_t>(), py::arg("context"), py::kw_only(),
           py::arg("heap_offset"))
      .def_static("heap_bytes", &StreamBarrier::heap_bytes, py::arg("world_size"))
      .def("launch", &StreamBarrier::launch, py::arg("stream"), py::call_guard<py::gil_scoped_release>());
}
