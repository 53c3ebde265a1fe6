// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// mori._core.topology: the structs of topology.hpp with all their fields, and its functions.
// python/mori/topology.py turns the structs into frozen dataclasses and back.
#include "src/core/topology/topology.hpp"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>

namespace py = pybind11;
using namespace mori::core;

void bind_topology(py::module_& module) {
  py::module_ m = module.def_submodule("topology", "See mori.topology.");

  py::enum_<PathKind>(m, "PathKind")
      .value("SELF", PathKind::same)
      .value("NVL", PathKind::nvlink)
      .value("XGMI", PathKind::xgmi)
      .value("PIX", PathKind::pix)
      .value("PXB", PathKind::pxb)
      .value("PHB", PathKind::phb)
      .value("NODE", PathKind::node)
      .value("SYS", PathKind::sys)
      .value("NET", PathKind::net);

  py::class_<NumaNode>(m, "NumaNode")
      .def(py::init<>())
      .def_readwrite("id", &NumaNode::id)
      .def_readwrite("socket", &NumaNode::socket)
      .def_readwrite("cpulist", &NumaNode::cpulist)
      .def_readwrite("memory_bytes", &NumaNode::memory_bytes)
      .def_readwrite("distances", &NumaNode::distances);

  py::class_<PciDevice>(m, "PciDevice")
      .def(py::init<>())
      .def_readwrite("address", &PciDevice::address)
      .def_readwrite("vendor", &PciDevice::vendor)
      .def_readwrite("device", &PciDevice::device)
      .def_readwrite("class_code", &PciDevice::class_code)
      .def_readwrite("driver", &PciDevice::driver)
      .def_readwrite("numa_node", &PciDevice::numa_node)
      .def_readwrite("path", &PciDevice::path)
      .def_readwrite("physical_function", &PciDevice::physical_function)
      .def_readwrite("speed_gt_s", &PciDevice::speed_gt_s)
      .def_readwrite("max_speed_gt_s", &PciDevice::max_speed_gt_s)
      .def_readwrite("width", &PciDevice::width)
      .def_readwrite("max_width", &PciDevice::max_width);

  py::class_<Gpu>(m, "Gpu")
      .def(py::init<>())
      .def_readwrite("pci", &Gpu::pci)
      .def_readwrite("vendor", &Gpu::vendor)
      .def_readwrite("model", &Gpu::model)
      .def_readwrite("numa_node", &Gpu::numa_node)
      .def_readwrite("partitions", &Gpu::partitions);

  py::class_<NicPort>(m, "NicPort")
      .def(py::init<>())
      .def_readwrite("number", &NicPort::number)
      .def_readwrite("active", &NicPort::active)
      .def_readwrite("gbit_per_s", &NicPort::gbit_per_s)
      .def_readwrite("link_layer", &NicPort::link_layer)
      .def_readwrite("netdev", &NicPort::netdev);

  py::class_<Nic>(m, "Nic")
      .def(py::init<>())
      .def_readwrite("name", &Nic::name)
      .def_readwrite("pci", &Nic::pci)
      .def_readwrite("numa_node", &Nic::numa_node)
      .def_readwrite("ports", &Nic::ports);

  py::class_<Nvme>(m, "Nvme")
      .def(py::init<>())
      .def_readwrite("name", &Nvme::name)
      .def_readwrite("pci", &Nvme::pci)
      .def_readwrite("numa_node", &Nvme::numa_node);

  py::class_<GpuLink>(m, "GpuLink")
      .def(py::init<>())
      .def_readwrite("a", &GpuLink::a)
      .def_readwrite("b", &GpuLink::b)
      .def_readwrite("kind", &GpuLink::kind)
      .def_readwrite("links", &GpuLink::links)
      .def_readwrite("gbytes_per_s", &GpuLink::gbytes_per_s)
      .def_readwrite("weight", &GpuLink::weight);

  py::class_<Topology>(m, "Topology")
      .def(py::init<>())
      .def_readwrite("host", &Topology::host)
      .def_readwrite("numa_nodes", &Topology::numa_nodes)
      .def_readwrite("pci", &Topology::pci)
      .def_readwrite("gpus", &Topology::gpus)
      .def_readwrite("nics", &Topology::nics)
      .def_readwrite("nvmes", &Topology::nvmes)
      .def_readwrite("links", &Topology::links)
      .def_readwrite("notes", &Topology::notes);

  py::class_<Path>(m, "Path")
      .def_readonly("kind", &Path::kind)
      .def_readonly("gbytes_per_s", &Path::gbytes_per_s)
      .def_readonly("links", &Path::links);

  py::class_<RankPlace>(m, "RankPlace")
      .def(py::init<>())
      .def_readwrite("host", &RankPlace::host)
      .def_readwrite("gpu", &RankPlace::gpu)
      .def_readwrite("numa_node", &RankPlace::numa_node)
      .def_readwrite("nic", &RankPlace::nic)
      .def_readwrite("nic_gbytes_per_s", &RankPlace::nic_gbytes_per_s);

  m.def("read_topology", &read_topology, py::arg("root"), py::arg("links"),
        py::call_guard<py::gil_scoped_release>());
  m.def("path_between", &path_between, py::arg("topology"), py::arg("a"), py::arg("b"));
  m.def("pick_nics", &pick_nics, py::arg("topology"), py::arg("gpu"), py::arg("allow"));
  m.def("pick_nics_for_numa", &pick_nics_for_numa, py::arg("topology"), py::arg("numa_node"),
        py::arg("allow"));
  m.def("assign_nics", &assign_nics, py::arg("topology"), py::arg("allow"));
  m.def("place_of", &place_of, py::arg("topology"), py::arg("gpu"), py::arg("nic"));
  m.def("path_between_ranks", &path_between_ranks, py::arg("topology"), py::arg("a"), py::arg("b"));
}
