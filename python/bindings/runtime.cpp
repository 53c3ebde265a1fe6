// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// mori::core::Device for Python: one object for each device of a kind. Used by mori.context and the tests;
// the products' own bindings launch without passing through here.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "src/core/runtime/device.hpp"

namespace py = pybind11;

namespace {
using namespace mori::core;

Kind kind_of(const std::string& name) {
  for (const Kind kind : {Kind::cpu, Kind::cuda, Kind::hip})
    if (name == kind_name(kind)) return kind;
  throw ConfigError("device kind '" + name + "': allowed are 'cpu', 'cuda' and 'hip'");
}

void launch(Device& device, const Function& function, const LaunchShape& shape, uint64_t stream,
            const py::buffer& args) {
  const py::buffer_info info = args.request();
  const size_t bytes = static_cast<size_t>(info.size * info.itemsize);
  if (bytes != function.args_bytes)
    throw ConfigError("kernel " + function.name + " takes " + std::to_string(function.args_bytes) +
                      " bytes of arguments, got " + std::to_string(bytes));
  const py::gil_scoped_release released;
  device.launch(function, shape, stream, info.ptr);
}

py::tuple count_and_reason(const std::string& kind) {
  std::string why;
  const int count = device_count(kind_of(kind), &why);
  return py::make_tuple(count, why);
}
}  // namespace

void bind_runtime(py::module_& module) {
  using without_gil = py::call_guard<py::gil_scoped_release>;

  py::class_<LaunchShape>(module, "LaunchShape")
      .def(py::init([](uint32_t blocks, uint32_t warps, uint32_t shared_bytes) {
             return LaunchShape{blocks, warps, shared_bytes};
           }),
           py::arg("blocks") = 1, py::arg("warps") = 1, py::arg("shared_bytes") = 0)
      .def_readonly("blocks", &LaunchShape::blocks)
      .def_readonly("warps", &LaunchShape::warps)
      .def_readonly("shared_bytes", &LaunchShape::shared_bytes);

  py::class_<Properties>(module, "Properties")
      .def_readonly("name", &Properties::name)
      .def_readonly("arch", &Properties::arch)
      .def_readonly("pci_bus_id", &Properties::pci_bus_id)
      .def_readonly("processors", &Properties::processors)
      .def_readonly("warp_size", &Properties::warp_size)
      .def_readonly("max_warps", &Properties::max_warps)
      .def_readonly("shared_bytes", &Properties::shared_bytes)
      .def_readonly("memory_bytes", &Properties::memory_bytes)
      .def_readonly("clock_hz", &Properties::clock_hz);

  py::class_<Function>(module, "Function")
      .def_readonly("name", &Function::name)
      .def_readonly("args_bytes", &Function::args_bytes);

  py::class_<HostMemory>(module, "HostMemory")
      .def_property_readonly("host", [](const HostMemory& m) { return reinterpret_cast<uintptr_t>(m.host); })
      .def_readonly("device", &HostMemory::device)
      .def_readonly("bytes", &HostMemory::bytes);

  py::class_<Shareable>(module, "Shareable")
      .def_readonly("native", &Shareable::native)
      .def_readonly("fd", &Shareable::fd)
      .def_property_readonly("ipc", [](const Shareable& s) { return py::bytes(s.ipc); })
      .def_readonly("bytes", &Shareable::bytes);

  py::class_<PeerAttributes>(module, "PeerAttributes")
      .def_readonly("access", &PeerAttributes::access)
      .def_readonly("native_atomics", &PeerAttributes::native_atomics)
      .def_readonly("performance_rank", &PeerAttributes::performance_rank);

  py::class_<Device, std::shared_ptr<Device>>(module, "Device")
      .def_property_readonly("kind", [](const Device& d) { return kind_name(d.kind()); })
      .def_property_readonly("ordinal", &Device::ordinal)
      .def_property_readonly("properties", &Device::properties)
      .def("function", &Device::function, py::arg("unit"), py::arg("name"), py::arg("args_bytes"),
           py::return_value_policy::reference_internal, without_gil())
      .def("function_of", &Device::function_of, py::arg("path"), py::arg("name"), py::arg("args_bytes") = 0,
           py::return_value_policy::reference_internal, without_gil())
      .def("launch", &launch, py::arg("function"), py::arg("shape"), py::arg("stream"), py::arg("args"))
      .def("max_resident_blocks", &Device::max_resident_blocks, py::arg("function"), py::arg("warps"),
           py::arg("shared_bytes") = 0)
      .def("create_stream", &Device::create_stream, without_gil())
      .def("destroy_stream", &Device::destroy_stream, py::arg("stream"), without_gil())
      .def("synchronize", &Device::synchronize, py::arg("stream") = 0, without_gil())
      .def("allocate", &Device::allocate, py::arg("bytes"), without_gil())
      .def("free", &Device::free, py::arg("address"), without_gil())
      .def("fill", &Device::fill, py::arg("address"), py::arg("value"), py::arg("bytes"), without_gil())
      .def("copy", &Device::copy, py::arg("to"), py::arg("source"), py::arg("bytes"), without_gil())
      .def("allocate_host", &Device::allocate_host, py::arg("bytes"), without_gil())
      .def("free_host", &Device::free_host, py::arg("memory"), without_gil())
      .def_property_readonly("can_map", &Device::can_map)
      .def_property_readonly("share_granularity", &Device::share_granularity)
      .def("reserve", &Device::reserve, py::arg("bytes"), without_gil())
      .def("unreserve", &Device::unreserve, py::arg("address"), py::arg("bytes"), without_gil())
      .def("create_shareable", &Device::create_shareable, py::arg("bytes"), without_gil())
      .def(
          "import_shareable",
          [](Device& device, int fd, const py::bytes& ipc, size_t bytes) {
            const std::string handle = ipc;
            const py::gil_scoped_release released;
            return device.import_shareable(fd, handle, bytes);
          },
          py::arg("fd"), py::arg("ipc"), py::arg("bytes"))
      .def("map", &Device::map, py::arg("address"), py::arg("memory"), without_gil())
      .def("unmap", &Device::unmap, py::arg("address"), py::arg("bytes"), without_gil())
      .def("release", &Device::release, py::arg("memory"), without_gil())
      .def("open_ipc", &Device::open_ipc, py::arg("memory"), without_gil())
      .def("close_ipc", &Device::close_ipc, py::arg("address"), without_gil());

  module.def(
      "open_device",
      [](const std::string& kind, int ordinal, const std::string& kernel_dir, uint32_t cpu_lanes,
         uint32_t cpu_threads) {
        const DeviceOptions options{kernel_dir, cpu_lanes, cpu_threads};
        const py::gil_scoped_release released;
        return open_device(kind_of(kind), ordinal, options);
      },
      py::arg("kind"), py::arg("ordinal") = 0, py::arg("kernel_dir") = "", py::arg("cpu_lanes") = 1,
      py::arg("cpu_threads") = 0);
  module.def("device_count", &count_and_reason, py::arg("kind"),
             "Number of devices, and why there are none.");
  module.def(
      "peer_attributes",
      [](const std::string& kind, int from, int to) { return peer_attributes(kind_of(kind), from, to); },
      py::arg("kind"), py::arg("source"), py::arg("to"), without_gil());
}
