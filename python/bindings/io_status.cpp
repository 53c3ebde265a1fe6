// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// mori._core.io: the enumerations and the status of a transfer. Names and values are those that frameworks
// use.
#include "src/io/status.hpp"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "python/bindings/io_arguments.hpp"

namespace py = pybind11;
using namespace mori::io;

namespace {

enum class BackendType { unknown = 0, xgmi = 1, rdma = 2, tcp = 3, fabric = 4, shm = 5, file = 6 };
enum class PollCqMode { polling = 0, event = 1 };

StatusCode wait_for(Status& status, int64_t timeout_ms) {
  if (status.terminal()) return status.code();  // without giving the GIL away
  const py::gil_scoped_release release;
  return status.wait(deadline_of_ms(timeout_ms));
}

}  // namespace

void bind_io_status(py::module_& m) {
  py::enum_<StatusCode>(m, "StatusCode")
      .value("SUCCESS", StatusCode::success)
      .value("INIT", StatusCode::init)
      .value("IN_PROGRESS", StatusCode::in_progress)
      .value("ERR_BEGIN", StatusCode::err_begin)
      .value("ERR_INVALID_ARGS", StatusCode::err_invalid_args)
      .value("ERR_NOT_FOUND", StatusCode::err_not_found)
      .value("ERR_RDMA_OP", StatusCode::err_rdma_op)
      .value("ERR_BAD_STATE", StatusCode::err_bad_state)
      .value("ERR_GPU_OP", StatusCode::err_gpu_op)
      .value("ERR_TIMEOUT", StatusCode::err_timeout)
      .value("ERR_CANCELLED", StatusCode::err_cancelled)
      .value("ERR_PEER_LOST", StatusCode::err_peer_lost)
      .value("ERR_TRANSPORT", StatusCode::err_transport)
      .value("ERR_DENIED", StatusCode::err_denied)
      .value("ERR_IO", StatusCode::err_io)
      .export_values();
  py::enum_<Location>(m, "MemoryLocationType")
      .value("Unknown", Location::unknown)
      .value("CPU", Location::cpu)
      .value("GPU", Location::gpu)
      .value("FILE", Location::file)
      .export_values();
  py::enum_<BackendType>(m, "BackendType")
      .value("Unknown", BackendType::unknown)
      .value("XGMI", BackendType::xgmi)
      .value("RDMA", BackendType::rdma)
      .value("TCP", BackendType::tcp)
      .value("FABRIC", BackendType::fabric)
      .value("SHM", BackendType::shm)
      .value("FILE", BackendType::file);
  py::enum_<PollCqMode>(m, "PollCqMode")
      .value("POLLING", PollCqMode::polling)
      .value("EVENT", PollCqMode::event);

  py::class_<Completions, std::shared_ptr<Completions>>(m, "Completions")
      .def(py::init<>())
      .def("fileno", &Completions::fd)
      .def("take", &Completions::take);

  py::class_<Status, std::shared_ptr<Status>>(m, "TransferStatus")
      .def(py::init<>())
      .def("Init", [](const Status& s) { return s.code() == StatusCode::init; })
      .def("InProgress", [](const Status& s) { return s.code() == StatusCode::in_progress; })
      .def("Succeeded", [](const Status& s) { return s.code() == StatusCode::success; })
      .def("Failed", [](const Status& s) { return is_failure(s.code()); })
      .def("Code", &Status::code)
      .def("Message", &Status::message)
      .def("Wait", [](Status& s) { return wait_for(s, -1); })
      .def("WaitFor", &wait_for, py::arg("timeout_ms") = -1)
      .def("Update", &Status::update, py::arg("code"), py::arg("message"))
      .def(
          "SetCode", [](Status& s, StatusCode code) { s.update(code, s.message()); }, py::arg("code"))
      .def(
          "SetMessage", [](Status& s, std::string message) { s.update(s.code(), std::move(message)); },
          py::arg("message"))
      .def("done", &Status::terminal)
      .def("cancel", &Status::cancel, py::call_guard<py::gil_scoped_release>())
      .def_property_readonly("id", &Status::id)
      .def_property_readonly("route", &Status::route)
      .def_property_readonly("bytes_total", &Status::bytes_total)
      .def_property_readonly("bytes_done", &Status::bytes_done)
      .def("_tell", &Status::tell, py::arg("completions"), py::arg("id"));

  m.def(
      "wait_all",
      [](const std::vector<std::shared_ptr<Status>>& statuses, int64_t timeout_ms) {
        const py::gil_scoped_release release;
        return wait_all(statuses, deadline_of_ms(timeout_ms));
      },
      py::arg("statuses"), py::arg("timeout_ms") = -1);
}
