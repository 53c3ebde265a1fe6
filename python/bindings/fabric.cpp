// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// mori._core.Fabric: a rank's queues to its peers.
#include "src/transport/ibgda/fabric.hpp"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

namespace py = pybind11;

void bind_fabric(py::module_& module) {
  using namespace mori::ibgda;
  using release_gil = py::call_guard<py::gil_scoped_release>;
  py::enum_<Family>(module, "NicFamily")
      .value("none", Family::none)
      .value("mlx5", Family::mlx5)
      .value("bnxt_re", Family::bnxt_re)
      .value("ionic", Family::ionic);
  py::enum_<Path>(module, "Path")
      .value("none", Path::none)
      .value("direct", Path::direct)
      .value("queue", Path::queue);
  py::enum_<MoverKind>(module, "Mover")
      .value("auto", MoverKind::automatic)
      .value("shm", MoverKind::shm)
      .value("tcp", MoverKind::tcp)
      .value("verbs", MoverKind::verbs);
  py::class_<RankFabric, std::shared_ptr<RankFabric>>(module, "Fabric")
      .def(py::init([](std::shared_ptr<mori::core::SymmetricHeap> heap, std::vector<Path> paths,
                       Family family, uint32_t queues_per_peer, uint32_t depth, std::string nic,
                       MoverKind mover, std::string address, std::string device, int64_t timeout_ms) {
             return std::make_shared<RankFabric>(
                 std::move(heap),
                 FabricOptions{family, queues_per_peer, depth, std::move(nic), mover, std::move(address),
                               std::move(device), std::chrono::milliseconds(timeout_ms)},
                 std::move(paths));
           }),
           py::arg("heap"), py::arg("paths"), py::kw_only(), py::arg("family"),
           py::arg("queues_per_peer") = FabricOptions{}.queues_per_peer,
           py::arg("depth") = FabricOptions{}.depth, py::arg("nic") = "",
           py::arg("mover") = MoverKind::automatic, py::arg("address") = FabricOptions{}.address,
           py::arg("device") = "", py::arg("timeout_ms") = FabricOptions{}.timeout.count())
      .def("offer", [](const RankFabric& f) { return py::bytes(f.offer()); })
      .def("connect", &RankFabric::connect, py::arg("offers"), release_gil())
      .def("follow_heap", &RankFabric::follow_heap, release_gil())
      .def("stop", &RankFabric::stop, release_gil())
      .def_property_readonly("fixed", &RankFabric::fixed)
      .def_property_readonly("address", &RankFabric::address)
      .def_property_readonly("bases", &RankFabric::bases)
      .def("add_region", &RankFabric::add_region, py::arg("begin"), py::arg("bytes"), release_gil())
      .def("remove_region", &RankFabric::remove_region, py::arg("begin"), release_gil())
      .def("has_region", &RankFabric::has_region, py::arg("begin"), py::arg("bytes"))
      .def("trouble", &RankFabric::trouble, py::arg("pe"))
      .def("violations", &RankFabric::violations);
}
