// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// mori._core.Context: the C++ half of mori.Context.
#include "src/core/context.hpp"

#include <pybind11/pybind11.h>

#include "src/transport/ibgda/fabric.hpp"

namespace py = pybind11;

void bind_context(py::module_& module) {
  using namespace mori;
  py::class_<ErrorWord>(module, "ErrorWord")
      .def_readonly("state", &ErrorWord::state)
      .def_readonly("peer", &ErrorWord::peer)
      .def_readonly("expected", &ErrorWord::expected)
      .def_readonly("seen", &ErrorWord::seen)
      .def_property_readonly("wait", [](const ErrorWord& e) { return core::wait_name(Wait(e.wait)); })
      .def_property_readonly("refusal",
                             [](const ErrorWord& e) { return core::refusal_name(Refusal(e.refusal)); })
      .def_property_readonly("lost_peer", [](const ErrorWord& e) { return int64_t(e.abort) - 1; });

  py::class_<core::Context, std::shared_ptr<core::Context>>(module, "Context")
      .def(py::init([](std::shared_ptr<core::Device> device, uint32_t rank, uint32_t world_size,
                       uint64_t bases, uint64_t timeout_ns, uint32_t ranks_on_device) {
             return std::make_shared<core::Context>(
                 std::move(device), core::Group{rank, world_size, bases, timeout_ns, ranks_on_device});
           }),
           py::arg("device"), py::kw_only(), py::arg("rank"), py::arg("world_size"), py::arg("bases"),
           py::arg("timeout_ns"), py::arg("ranks_on_device"))
      .def_property_readonly("world",
                             [](const core::Context& c) {
                               return py::bytes(reinterpret_cast<const char*>(&c.world()), sizeof(World));
                             })
      .def(
          "use_queues",
          [](core::Context& c, const std::shared_ptr<ibgda::RankFabric>& fabric) {
            c.use_queues(fabric->bases(), fabric->address(), fabric);
          },
          py::arg("fabric"))
      .def("resident_blocks", &core::Context::resident_blocks, py::arg("function"), py::arg("warps"),
           py::arg("shared_bytes"))
      .def("error", &core::Context::error)
      .def("is_clean", &core::Context::is_clean)
      .def("clear_refusal", &core::Context::clear_refusal)
      .def("clear_failure", &core::Context::clear_failure)
      .def("leave_waits", &core::Context::leave_waits, py::arg("lost_peer"));

  py::class_<core::PreparedLaunch>(module, "PreparedLaunch")
      .def(py::init([](std::shared_ptr<core::Context> context, const core::Function& function,
                       const core::LaunchShape& shape, const py::bytes& args, size_t place) {
             return core::PreparedLaunch(std::move(context), function, shape, args, place);
           }),
           py::arg("context"), py::arg("function"), py::arg("shape"), py::arg("args"), py::arg("place"),
           py::keep_alive<1, 3>())
      .def("run", [](const core::PreparedLaunch& launch, uint64_t stream, uint64_t a, uint64_t b, uint64_t c,
                     uint64_t d) {
        const py::gil_scoped_release released;
        return launch.run(stream, {a, b, c, d});
      });
}
