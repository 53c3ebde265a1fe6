// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// mori._core.io.rdma_examine(): what this machine has for the rdma backend. Called by `mori doctor`.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "src/io/backends/rdma/rdma.hpp"

namespace py = pybind11;
using namespace mori::io;

void bind_io_rdma(py::module_& module) {
  module.def(
      "rdma_examine",
      [](const std::string& devices) {
        std::string reason;
        std::vector<rdma::DeviceReport> reports;
        {
          const py::gil_scoped_release release;
          reports = rdma::examine(rdma::config_from(BackendOptions({{"devices", devices}})), &reason);
        }
        py::list all;
        for (const rdma::DeviceReport& r : reports) {
          py::dict d;
          d["name"] = r.name;
          d["address"] = r.address;
          d["mtu"] = r.mtu;
          d["dmabuf"] = r.dmabuf;
          d["problem"] = r.problem;
          all.append(d);
        }
        return py::make_tuple(all, reason);
      },
      py::arg("devices") = "",
      "(one dict per RDMA device, why there is none). Opens each device and closes it again.");
}
