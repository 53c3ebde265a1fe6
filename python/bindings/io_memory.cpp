// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// mori._core.io: memory that peers can map, and files to register.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "src/io/backends/file/open_file.hpp"
#include "src/io/backends/shm/shared_memory.hpp"

namespace py = pybind11;
using namespace mori::io;

void bind_io_memory(py::module_& m) {
  // A view keeps the object, and so the memory, alive: numpy.frombuffer, torch.frombuffer, memoryview.
  py::class_<SharedMemory, std::shared_ptr<SharedMemory>>(m, "SharedMemory", py::buffer_protocol())
      .def(py::init([](uint64_t bytes, bool prefault) {
             const py::gil_scoped_release release;
             return SharedMemory::create(bytes, prefault);
           }),
           py::arg("bytes"), py::kw_only(), py::arg("prefault") = false)
      .def_buffer([](SharedMemory& memory) {
        return py::buffer_info(reinterpret_cast<uint8_t*>(memory.address()),
                               static_cast<py::ssize_t>(memory.bytes()));
      })
      .def("__len__", &SharedMemory::bytes)
      .def_property_readonly("nbytes", &SharedMemory::bytes)
      .def_property_readonly("address", &SharedMemory::address)
      .def("fileno", &SharedMemory::fd);

  // (descriptor, which is the caller's, absolute path, bytes)
  m.def(
      "open_file",
      [](const std::string& path, std::optional<uint64_t> bytes, bool writable, std::optional<bool> direct,
         bool durable) {
        file::Opened opened;
        {
          const py::gil_scoped_release release;
          opened = file::open_file(path, bytes, writable, direct, durable);
        }
        return py::make_tuple(opened.fd.release(), opened.path, opened.bytes);
      },
      py::arg("path"), py::kw_only(), py::arg("bytes"), py::arg("writable"), py::arg("direct"),
      py::arg("durable"));
}
