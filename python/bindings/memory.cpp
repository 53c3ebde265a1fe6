// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// mori._core: the symmetric heap, and tensors over memory that something else owns (DLPack).
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "python/bindings/dlpack.hpp"
#include "src/core/memory/offset_allocator.hpp"
#include "src/core/memory/peer_memory.hpp"
#include "src/core/memory/symmetric_heap.hpp"
#include "src/core/runtime/gpu_device.hpp"

namespace py = pybind11;
using namespace mori::core;  // NOLINT: a binding file names little else

namespace {

// What a capsule keeps alive: `owner` holds the memory, the vectors hold the description.
struct Exported {
  mori::dlpack::ManagedTensor managed{};
  std::shared_ptr<void> owner;
  std::vector<int64_t> shape, strides;
};

int32_t dlpack_device_type(Kind kind) {
  if (kind == Kind::cuda) return mori::dlpack::kCuda;
  return kind == Kind::hip ? mori::dlpack::kRocm : mori::dlpack::kCpu;
}

// The consumer calls the deleter, from any thread and without the GIL: it must not touch Python.
py::capsule tensor(uint64_t address, const std::vector<int64_t>& shape, uint8_t code, uint8_t bits,
                   const Device& device, std::shared_ptr<void> owner) {
  auto exported = std::make_unique<Exported>();
  exported->shape = shape;
  exported->strides.resize(shape.size());
  int64_t stride = 1;
  for (size_t axis = shape.size(); axis-- > 0;) {
    exported->strides[axis] = stride;
    if (shape[axis] < 0 || (shape[axis] > 0 && stride > std::numeric_limits<int64_t>::max() / shape[axis])) {
      throw ConfigError("shape: dimension " + std::to_string(axis) + " is " + std::to_string(shape[axis]) +
                        ", which is negative or too large");
    }
    stride *= std::max<int64_t>(shape[axis], 1);
  }
  exported->owner = std::move(owner);
  exported->managed = {
      .tensor = {.data = reinterpret_cast<void*>(address),
                 .device = {dlpack_device_type(device.kind()),
                            device.kind() == Kind::cpu ? 0 : device.ordinal()},
                 .ndim = int32_t(shape.size()),
                 .dtype = {code, bits, 1},
                 .shape = exported->shape.data(),
                 .strides = exported->strides.data(),
                 .byte_offset = 0},
      .owner = exported.get(),
      .deleter = [](mori::dlpack::ManagedTensor* self) { delete static_cast<Exported*>(self->owner); }};
  PyObject* capsule = PyCapsule_New(&exported->managed, mori::dlpack::kCapsuleName, [](PyObject* self) {
    if (!PyCapsule_IsValid(self, mori::dlpack::kCapsuleName)) return;  // a consumer took and renamed it
    auto* managed =
        static_cast<mori::dlpack::ManagedTensor*>(PyCapsule_GetPointer(self, mori::dlpack::kCapsuleName));
    managed->deleter(managed);
  });
  if (capsule == nullptr) throw py::error_already_set();
  static_cast<void>(exported.release());
  return py::reinterpret_steal<py::capsule>(capsule);
}

void bind_allocator(py::module_& m) {
  using Statistics = OffsetAllocator::Statistics;
  py::class_<Statistics>(m, "HeapStatistics")
      .def_readonly("capacity_bytes", &Statistics::capacity_bytes)
      .def_readonly("used_bytes", &Statistics::used_bytes)
      .def_readonly("peak_used_bytes", &Statistics::peak_used_bytes)
      .def_readonly("largest_free_bytes", &Statistics::largest_free_bytes)
      .def_readonly("allocations", &Statistics::allocations)
      .def_readonly("free_ranges", &Statistics::free_ranges);
  py::class_<OffsetAllocator>(m, "OffsetAllocator")
      .def(py::init<uint64_t>(), py::arg("capacity_bytes") = 0)
      .def("grow", &OffsetAllocator::grow, py::arg("bytes"))
      .def("allocate", &OffsetAllocator::allocate, py::arg("bytes"), py::arg("alignment"))
      .def("free", &OffsetAllocator::free, py::arg("offset"))
      .def_property_readonly("capacity_bytes", &OffsetAllocator::capacity_bytes)
      .def_property_readonly("statistics", &OffsetAllocator::statistics);
}

void bind_heap(py::module_& m) {
  using release_gil = py::call_guard<py::gil_scoped_release>;
  py::class_<Allocation, std::shared_ptr<Allocation>>(m, "Allocation")
      .def_property_readonly("offset", &Allocation::offset)
      .def_property_readonly("nbytes", &Allocation::bytes)
      .def(
          "address",
          [](const Allocation& a, std::optional<uint32_t> peer) {
            return a.heap()->address(peer.value_or(a.heap()->rank()), a.offset());
          },
          py::arg("peer") = py::none())
      .def(
          "tensor",
          [](const std::shared_ptr<Allocation>& a, uint32_t peer, uint64_t byte_offset,
             const std::vector<int64_t>& shape, uint8_t code, uint8_t bits) {
            return tensor(a->heap()->address(peer, a->offset()) + byte_offset, shape, code, bits,
                          *a->heap()->device(), a);
          },
          py::arg("peer"), py::arg("byte_offset"), py::arg("shape"), py::arg("code"), py::arg("bits"));

  using Export = SymmetricHeap::Export;
  py::class_<Export>(m, "HeapExport")
      .def_readonly("bytes", &Export::bytes)
      .def_readonly("fd", &Export::fd)
      .def_property_readonly("ipc", [](const Export& e) { return py::bytes(e.ipc); });
  py::class_<SymmetricHeap, std::shared_ptr<SymmetricHeap>>(m, "SymmetricHeap")
      .def(py::init([](std::shared_ptr<Device> device, uint32_t rank, uint32_t world_size,
                       uint64_t reserve_bytes, bool map, bool debug, std::vector<bool> apart) {
             return SymmetricHeap::create(std::move(device), rank, world_size,
                                          {reserve_bytes, map, debug, std::move(apart)});
           }),
           py::arg("device"), py::arg("rank"), py::arg("world_size"), py::kw_only(), py::arg("reserve_bytes"),
           py::arg("map") = true, py::arg("debug") = false, py::arg("apart") = std::vector<bool>())
      .def("grow", &SymmetricHeap::grow, py::arg("bytes"), release_gil())
      .def("attach", &SymmetricHeap::attach, py::arg("peer"), py::arg("fd"), py::arg("ipc"), py::arg("bytes"),
           release_gil())
      .def("commit", &SymmetricHeap::commit, release_gil())
      .def("abandon", &SymmetricHeap::abandon, release_gil())
      .def("allocate", &SymmetricHeap::allocate, py::arg("bytes"), py::arg("alignment"), py::arg("name"),
           release_gil())
      .def("find", &SymmetricHeap::find, py::arg("offset"))
      .def("take_released", &SymmetricHeap::take_released)
      .def("free", &SymmetricHeap::free, py::arg("offset"), release_gil())
      .def("address", &SymmetricHeap::address, py::arg("peer"), py::arg("offset"))
      .def(
          "locate",
          [](const SymmetricHeap& heap, uint64_t address) -> std::optional<std::pair<uint32_t, uint64_t>> {
            const auto place = heap.locate(address);
            if (!place) return std::nullopt;
            return std::pair(place->peer, place->offset);
          },
          py::arg("address"))
      .def("quiesce", &SymmetricHeap::quiesce, release_gil())
      .def(
          "tensor",
          [](const std::shared_ptr<SymmetricHeap>& heap, uint32_t peer, uint64_t offset,
             const std::vector<int64_t>& shape, uint8_t code, uint8_t bits) {
            return tensor(heap->address(peer, offset), shape, code, bits, *heap->device(), heap);
          },
          py::arg("peer"), py::arg("offset"), py::arg("shape"), py::arg("code"), py::arg("bits"))
      .def("fill", &SymmetricHeap::fill, py::arg("offset"), py::arg("value"), py::arg("bytes"), release_gil())
      .def("check_canaries", &SymmetricHeap::check_canaries, release_gil())
      .def("needed_bytes", &SymmetricHeap::needed_bytes, py::arg("bytes"))
      .def_property_readonly("bases_address", &SymmetricHeap::bases_address)
      .def_property_readonly("capacity_bytes", &SymmetricHeap::capacity_bytes)
      .def_property_readonly("granularity", &SymmetricHeap::granularity)
      .def_property_readonly("alignment_limit", &SymmetricHeap::alignment_limit)
      .def_property_readonly("reserve_bytes", &SymmetricHeap::reserve_bytes)
      .def_property_readonly("growable", &SymmetricHeap::growable)
      .def_property_readonly("statistics", &SymmetricHeap::statistics);
  m.attr("POISON_BYTE") = kPoisonByte;
  m.attr("CANARY_BYTE") = kCanaryByte;
}

void bind_peer_memory(py::module_& m) {
  py::class_<PeerMemory, std::shared_ptr<PeerMemory>>(m, "PeerMemory")
      .def(py::init<std::shared_ptr<Device>, std::string_view, uint64_t>(), py::arg("device"), py::arg("ipc"),
           py::arg("bytes"), py::call_guard<py::gil_scoped_release>())
      .def_property_readonly("address", &PeerMemory::address)
      .def(
          "tensor",
          [](const std::shared_ptr<PeerMemory>& p, uint64_t byte_offset, const std::vector<int64_t>& shape,
             uint8_t code,
             uint8_t bits) { return tensor(p->address() + byte_offset, shape, code, bits, *p->device(), p); },
          py::arg("byte_offset"), py::arg("shape"), py::arg("code"), py::arg("bits"));
  // (what to send, offset of the address in the allocation, size of the allocation), or None
  m.def(
      "export_memory",
      [](Device& device, uint64_t address) -> std::optional<py::tuple> {
        const AllocationInfo info = allocation_info(device, address);
        if (!info.ipc_capable) return std::nullopt;
        return py::make_tuple(py::bytes(pack_ipc(info.base, export_ipc(device, info.base))),
                              address - info.base, info.bytes);
      },
      py::arg("device"), py::arg("address"));
}

}  // namespace

void bind_memory(py::module_& m) {
  bind_allocator(m);
  bind_heap(m);
  bind_peer_memory(m);
}
