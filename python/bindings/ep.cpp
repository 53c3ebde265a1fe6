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

  py::enum_<mori::EpPlacement>(module, "EpPlacement")
      .value("rank", mori::EpPlacement::rank)
      .value("expert", mori::EpPlacement::expert)
      .value("grouped", mori::EpPlacement::grouped);
  py::enum_<mori::EpFormat>(module, "EpFormat")
      .value("as_is", mori::EpFormat::as_is)
      .value("e4m3fn", mori::EpFormat::e4m3fn)
      .value("e4m3fnuz", mori::EpFormat::e4m3fnuz)
      .value("e2m1", mori::EpFormat::e2m1);
  py::enum_<mori::EpElement>(module, "EpElement")
      .value("bf16", mori::EpElement::bf16)
      .value("fp16", mori::EpElement::fp16)
      .value("fp32", mori::EpElement::fp32);
  py::enum_<mori::EpScale>(module, "EpScale")
      .value("fp32", mori::EpScale::fp32)
      .value("ue8m0", mori::EpScale::ue8m0);

  py::enum_<mori::EpWire>(module, "EpWire")
      .value("as_is", mori::EpWire::as_is)
      .value("fp8", mori::EpWire::fp8)
      .value("fp8_block", mori::EpWire::fp8_block);

  py::class_<Convert>(module, "EpConvert")
      .def(py::init([](mori::EpFormat format, mori::EpElement element, mori::EpScale scale, uint32_t group,
                       uint32_t hidden, bool column_major) {
             return Convert{format, element, scale, group, hidden, column_major};
           }),
           py::kw_only(), py::arg("format"), py::arg("element"), py::arg("scale"), py::arg("group"),
           py::arg("hidden"), py::arg("column_major"));
  py::class_<Config>(module, "EpConfig")
      .def(py::init([](uint64_t row_bytes, uint64_t combine_row_bytes, uint64_t capacity, uint32_t world_size,
                       uint32_t num_experts, uint32_t topk, uint32_t max_tokens, uint32_t scale_bytes,
                       uint32_t live_results, mori::EpPlacement placement, uint32_t experts_per_rank,
                       uint32_t expert_capacity, uint64_t grouped_slots, uint32_t alignment,
                       const Convert& convert, bool zero_padding, bool guarded) {
             return Config{row_bytes,        combine_row_bytes,
                           capacity,         world_size,
                           num_experts,      topk,
                           max_tokens,       scale_bytes,
                           live_results,     placement,
                           experts_per_rank, expert_capacity,
                           grouped_slots,    alignment,
                           convert,          zero_padding,
                           guarded};
           }),
           py::kw_only(), py::arg("row_bytes"), py::arg("combine_row_bytes"), py::arg("capacity"),
           py::arg("world_size"), py::arg("num_experts"), py::arg("topk"), py::arg("max_tokens"),
           py::arg("scale_bytes"), py::arg("live_results"), py::arg("placement") = mori::EpPlacement::rank,
           py::arg("experts_per_rank") = 0, py::arg("expert_capacity") = 0, py::arg("grouped_slots") = 0,
           py::arg("alignment") = 1, py::arg("convert") = Convert{}, py::arg("zero_padding") = false,
           py::arg("guarded") = false)
      .def_property_readonly("fan", &Config::fan)
      .def_property_readonly("slots", &Config::slots);

  using EpReceiveLayout = mori::EpReceive;
  py::class_<EpReceiveLayout>(module, "EpReceiveLayout")
      .def_readonly("rows", &EpReceiveLayout::rows)
      .def_readonly("ids", &EpReceiveLayout::ids)
      .def_readonly("weights", &EpReceiveLayout::weights)
      .def_readonly("scales", &EpReceiveLayout::scales)
      .def_readonly("sources", &EpReceiveLayout::sources)
      .def_readonly("routes", &EpReceiveLayout::routes);
  py::class_<mori::EpScales>(module, "EpScaleLayout")
      .def_readonly("columns", &mori::EpScales::columns)
      .def_readonly("block", &mori::EpScales::block)
      .def_readonly("row_bytes", &mori::EpScales::row_bytes)
      .def_readonly("column_bytes", &mori::EpScales::column_bytes)
      .def_readonly("block_bytes", &mori::EpScales::block_bytes);
  py::class_<mori::EpRoutingAddress>(module, "EpRoutingLayout")
      .def_readonly("header", &mori::EpRoutingAddress::header)
      .def_readonly("received", &mori::EpRoutingAddress::received)
      .def_readonly("sent", &mori::EpRoutingAddress::sent)
      .def_readonly("returns", &mori::EpRoutingAddress::returns)
      .def_readonly("chunks", &mori::EpRoutingAddress::chunks)
      .def_readonly("buffer", &mori::EpRoutingAddress::buffer)
      .def_readonly("masks", &mori::EpRoutingAddress::masks)
      .def_readonly("positions", &mori::EpRoutingAddress::positions)
      .def_readonly("counts", &mori::EpRoutingAddress::counts)
      .def_readonly("offsets", &mori::EpRoutingAddress::offsets)
      .def_readonly("routes", &mori::EpRoutingAddress::routes);
  py::class_<Guard>(module, "EpGuard")
      .def_readonly("behind", &Guard::behind)
      .def_readonly("offset", &Guard::offset);
  py::class_<Layout>(module, "EpLayout")
      .def_readonly("signal_bytes", &Layout::signal_bytes)
      .def_readonly("heap_bytes", &Layout::heap_bytes)
      .def_readonly("routing_bytes", &Layout::routing_bytes)
      .def_readonly("receive", &Layout::receive)
      .def_readonly("receive_bytes", &Layout::receive_bytes)
      .def_readonly("receive_buffers", &Layout::receive_buffers)
      .def_readonly("slots", &Layout::slots)
      .def_readonly("scale", &Layout::scale)
      .def_readonly("routing", &Layout::routing)
      .def_readonly("guards", &Layout::guards)
      .def_readonly("receive_guards", &Layout::receive_guards)
      .def_readonly("stamps", &Layout::stamps)
      .def_readonly("combine_bytes", &Layout::combine_bytes)
      .def_readonly("combine_buffers", &Layout::combine_buffers)
      .def_property_readonly("combine_rows", [](const Layout& l) { return l.shared.combine_rows; });
  module.attr("EP_GUARD_BYTES") = kGuardBytes;
  module.attr("EP_SEND") = mori::kEpSend;
  module.attr("EP_RECEIVE") = mori::kEpReceive;
  module.attr("EP_MAX_BLOCKS") = mori::kEpMaxBlocks;
  module.attr("EP_TRACE_WORDS") = uint32_t(mori::kEpTraceWords);
  module.def("ep_layout", &make_layout, py::arg("config"));

  py::enum_<Element>(module, "Element")
      .value("bf16", Element::bf16)
      .value("fp16", Element::fp16)
      .value("fp32", Element::fp32);

  py::class_<CombineTuning>(module, "EpCombineTuning")
      .def_readwrite("blocks", &CombineTuning::blocks)
      .def_readwrite("senders", &CombineTuning::senders)
      .def_readwrite("sender_warps", &CombineTuning::sender_warps)
      .def_readwrite("unit", &CombineTuning::unit)
      .def_readwrite("parts", &CombineTuning::parts)
      .def_readwrite("mode", &CombineTuning::mode);

  py::class_<DispatchTuning>(module, "EpDispatchTuning").def_readwrite("senders", &DispatchTuning::senders);

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
             uint64_t routing, uint32_t tokens, uint32_t id_bytes, uint32_t buffer, uint64_t load,
             uint64_t active, uint64_t trace, uint32_t phases, uint32_t blocks) {
            d.dispatch({x,
                        ids,
                        weights,
                        scales,
                        routing,
                        tokens,
                        id_bytes,
                        buffer,
                        load,
                        {active, trace, phases, blocks}},
                       stream);
          },
          py::arg("stream"), py::arg("x"), py::arg("ids"), py::arg("weights"), py::arg("scales"),
          py::arg("routing"), py::arg("tokens"), py::arg("id_bytes"), py::arg("buffer"), py::kw_only(),
          py::arg("load") = 0, py::arg("active") = 0, py::arg("trace") = 0,
          py::arg("phases") = mori::kEpSend | mori::kEpReceive, py::arg("blocks") = 0, release_gil())
      .def(
          "combine",
          [](Dispatcher& d, uint64_t stream, uint64_t rows, uint64_t out, uint64_t bias, uint64_t weights,
             uint64_t ids, uint64_t routing, uint32_t tokens, uint32_t id_bytes, uint32_t hidden,
             uint32_t row_count, Element element, uint64_t row_weights, mori::EpWire wire, uint64_t active,
             uint64_t trace, uint32_t phases, uint32_t blocks) {
            d.combine({rows,
                       out,
                       bias,
                       weights,
                       ids,
                       routing,
                       tokens,
                       id_bytes,
                       hidden,
                       row_count,
                       element,
                       row_weights,
                       wire,
                       {active, trace, phases, blocks}},
                      stream);
          },
          py::arg("stream"), py::arg("rows"), py::arg("out"), py::arg("bias"), py::arg("weights"),
          py::arg("ids"), py::arg("routing"), py::arg("tokens"), py::arg("id_bytes"), py::arg("hidden"),
          py::arg("row_count"), py::arg("element"), py::kw_only(), py::arg("row_weights") = 0,
          py::arg("wire") = mori::EpWire::as_is, py::arg("active") = 0, py::arg("trace") = 0,
          py::arg("phases") = mori::kEpSend | mori::kEpReceive, py::arg("blocks") = 0, release_gil())
      .def_readwrite("combine_tuning", &Dispatcher::combine_tuning)
      .def_readwrite("dispatch_tuning", &Dispatcher::dispatch_tuning)
      .def("start_at", &Dispatcher::start_at, py::arg("dispatch_epoch"), py::arg("combine_epoch"),
           release_gil())
      .def("place_experts", &Dispatcher::place_experts, py::arg("expert_rank"), release_gil());
}
