// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// mori._core.EpDispatcher: launches dispatch and combine. Tensors arrive as addresses, checked by mori.ep.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "src/ops/ep/dispatcher.hpp"

namespace py = pybind11;

void bind_ep(py::module_& module) {
  using namespace mori::ep;
  using release_gil = py::call_guard<py::gil_scoped_release>;

  py::class_<Config>(module, "EpConfig")
      .def(py::init([](uint64_t row_bytes, uint64_t combine_row_bytes, uint64_t capacity, uint32_t world_size,
                       uint32_t num_experts, uint32_t topk, uint32_t max_tokens, uint32_t scale_bytes,
                       uint32_t live_results) {
             return Config{row_bytes, combine_row_bytes, capacity,    world_size,  num_experts,
                           topk,      max_tokens,        scale_bytes, live_results};
           }),
           py::kw_only(), py::arg("row_bytes"), py::arg("combine_row_bytes"), py::arg("capacity"),
           py::arg("world_size"), py::arg("num_experts"), py::arg("topk"), py::arg("max_tokens"),
           py::arg("scale_bytes"), py::arg("live_results"))
      .def_property_readonly("fan", &Config::fan);

  using EpReceiveLayout = mori::EpReceive;
  py::class_<EpReceiveLayout>(module, "EpReceiveLayout")
      .def_readonly("rows", &EpReceiveLayout::rows)
      .def_readonly("ids", &EpReceiveLayout::ids)
      .def_readonly("weights", &EpReceiveLayout::weights)
      .def_readonly("scales", &EpReceiveLayout::scales)
      .def_readonly("sources", &EpReceiveLayout::sources);
  py::class_<Layout>(module, "EpLayout")
      .def_readonly("signal_bytes", &Layout::signal_bytes)
      .def_readonly("heap_bytes", &Layout::heap_bytes)
      .def_readonly("routing_bytes", &Layout::routing_bytes)
      .def_readonly("receive", &Layout::receive)
      .def_readonly("receive_bytes", &Layout::receive_bytes)
      .def_readonly("receive_buffers", &Layout::receive_buffers);
  module.def("ep_layout", &make_layout, py::arg("config"));

  py::enum_<Element>(module, "Element")
      .value("bf16", Element::bf16)
      .value("fp16", Element::fp16)
      .value("fp32", Element::fp32);

  py::class_<Dispatcher>(module, "EpDispatcher")
      .def(py::init([](std::shared_ptr<mori::core::Context> context, const Config& config,
                       uint64_t heap_offset, const std::vector<int32_t>& expert_rank, uint32_t blocks,
                       uint32_t warps) {
             return std::make_unique<Dispatcher>(std::move(context), config, heap_offset, expert_rank,
                                                 Shape{blocks, warps});
           }),
           py::arg("context"), py::arg("config"), py::kw_only(), py::arg("heap_offset"),
           py::arg("expert_rank"), py::arg("blocks"), py::arg("warps"))
      .def_property_readonly("local_address", &Dispatcher::local)
      .def(
          "dispatch",
          [](Dispatcher& d, uint64_t stream, uint64_t x, uint64_t ids, uint64_t weights, uint64_t scales,
             uint64_t routing, uint32_t tokens, uint32_t id_bytes, uint32_t buffer) {
            d.dispatch({x, ids, weights, scales, routing, tokens, id_bytes, buffer}, stream);
          },
          py::arg("stream"), py::arg("x"), py::arg("ids"), py::arg("weights"), py::arg("scales"),
          py::arg("routing"), py::arg("tokens"), py::arg("id_bytes"), py::arg("buffer"), release_gil())
      .def(
          "combine",
          [](Dispatcher& d, uint64_t stream, uint64_t rows, uint64_t out, uint64_t bias, uint64_t weights,
             uint64_t ids, uint64_t routing, uint32_t tokens, uint32_t id_bytes, uint32_t hidden,
             uint32_t row_count, Element element) {
            d.combine({rows, out, bias, weights, ids, routing, tokens, id_bytes, hidden, row_count, element},
                      stream);
          },
          py::arg("stream"), py::arg("rows"), py::arg("out"), py::arg("bias"), py::arg("weights"),
          py::arg("ids"), py::arg("routing"), py::arg("tokens"), py::arg("id_bytes"), py::arg("hidden"),
          py::arg("row_count"), py::arg("element"), release_gil());
}
