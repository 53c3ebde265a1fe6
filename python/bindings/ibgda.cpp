// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// What device code writes for a request, and what it reads from a completion, made visible: the families'
// functions over a ring of their own. For `mori wqe` and for tests.
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "src/core/errors.hpp"
#include "src/transport/ibgda/providers/table.hpp"

namespace py = pybind11;

namespace {

using namespace mori::ibgda;

Family family_named(const std::string& name) {
  if (name == "mlx5") return Family::mlx5;
  if (name == "bnxt_re") return Family::bnxt_re;
  if (name == "ionic") return Family::ionic;
  throw mori::core::ConfigError("family='" + name + "': allowed are mlx5, bnxt_re, ionic");
}

/// A queue whose rings, record and registers are ordinary memory.
struct Bench {
  std::vector<uint64_t> ring, completions, msn;
  alignas(64) uint64_t doorbell = 0;
  alignas(64) uint64_t cq_doorbell = 0;
  alignas(8) uint32_t record[2] = {};
  Queue queue{};

  Bench(Family family, uint32_t depth, uint32_t unit, uint32_t cq_depth) {
    ring.assign(size_t(depth) * unit / 8 + 8, 0);
    completions.assign(size_t(cq_depth) * 8, 0);
    msn.assign(65536, 0);
    queue.sq = reinterpret_cast<uint64_t>(ring.data());
    queue.cq = reinterpret_cast<uint64_t>(completions.data());
    queue.msn = reinterpret_cast<uint64_t>(msn.data());
    queue.doorbell = reinterpret_cast<uint64_t>(&doorbell);
    queue.cq_doorbell = reinterpret_cast<uint64_t>(&cq_doorbell);
    queue.record = reinterpret_cast<uint64_t>(record);
    queue.family = family;
    queue.depth = depth;
    queue.cq_depth = cq_depth;
    queue.mtu = 4096;
    queue.msn_entries = 65536;
  }
};

py::bytes bytes_of(const void* p, size_t n) { return py::bytes(static_cast<const char*>(p), n); }

py::dict encode(const std::string& family_name, uint64_t position, uint32_t depth, uint32_t qpn, uint32_t op,
                uint32_t flags, uint32_t length, uint32_t immediate, uint64_t local, uint64_t remote,
                uint32_t lkey, uint32_t rkey, uint64_t value, uint64_t compare, uint64_t value_mask,
                uint64_t compare_mask, const std::string& payload, uint64_t packets, uint32_t mtu) {
  if (op > uint32_t(Op::send_imm))
    throw mori::core::ConfigError("op=" + std::to_string(op) + ": allowed are 0 to 9");
  if (depth == 0 || mtu == 0) throw mori::core::ConfigError("depth and mtu must be above 0");
  const Family family = family_named(family_name);
  Request r{.op = Op(op),
            .flags = flags,
            .length = length,
            .immediate = immediate,
            .local = local,
            .remote = remote,
            .lkey = lkey,
            .rkey = rkey,
            .value = value,
            .compare = compare,
            .value_mask = value_mask,
            .compare_mask = compare_mask};
  py::dict out;
  with_family(family, [&](auto f) {
    if ((flags & kInline) != 0) {
      if (payload.size() < length) throw mori::core::ConfigError("payload: shorter than length");
      if (length > f.kMaxInline)
        throw mori::core::ConfigError("length=" + std::to_string(length) + ": at most " +
                                      std::to_string(f.kMaxInline) + " bytes inline");
      r.local = reinterpret_cast<uint64_t>(payload.data());
    }
    const uint32_t units = f.units(r);
    if (depth < units || position + units < position)
      throw mori::core::ConfigError("depth=" + std::to_string(depth) + ": too small for the entry");
    Bench bench(family, depth, f.kUnit, 1);
    Queue& q = bench.queue;
    q.qpn = qpn;
    q.mtu = mtu;
    q.packets = packets;
    f.encode(q, position, r);
    if constexpr (requires { f.publish(q, position, r); }) {
      f.publish(q, position, r);
      out["msn"] = bytes_of(bench.msn.data(), 8);
      out["packets"] = q.packets;
    }
    q.published = position + units;
    f.ring(q, q.published);
    std::string wqe;
    for (uint32_t i = 0; i < units; ++i)
      wqe.append(reinterpret_cast<const char*>(q.sq) + (position + i) % depth * f.kUnit, f.kUnit);
    out["wqe"] = py::bytes(wqe);
    out["record"] = bytes_of(bench.record, 8);
    out["doorbell"] = bytes_of(&bench.doorbell, 8);
    out["units"] = units;
  });
  return out;
}

py::object take(const std::string& family_name, const std::string& completion, uint64_t consumed,
                uint32_t cq_depth, uint32_t depth, uint64_t completed, uint64_t completed_messages,
                uint64_t published, uint32_t cqn) {
  if (cq_depth == 0 || (cq_depth & (cq_depth - 1)) != 0)
    throw mori::core::ConfigError("cq_depth=" + std::to_string(cq_depth) + ": must be a power of two");
  if (depth == 0) throw mori::core::ConfigError("depth must be above 0");
  const Family family = family_named(family_name);
  py::object result = py::none();
  with_family(family, [&](auto f) {
    if (completion.size() != f.kCompletionBytes)
      throw mori::core::ConfigError("completion: has " + std::to_string(completion.size()) + " bytes, not " +
                                    std::to_string(f.kCompletionBytes));
    Bench bench(family, depth, f.kUnit, cq_depth);
    Queue& q = bench.queue;
    q.cqn = cqn;
    q.consumed = consumed;
    q.completed = completed;
    q.completed_messages = completed_messages;
    q.published = published;
    std::memcpy(reinterpret_cast<char*>(q.cq) + (consumed & (cq_depth - 1)) * f.kCompletionBytes,
                completion.data(), completion.size());
    Completion found{};
    if (!f.take(q, found)) return;
    py::dict out;
    out["failed"] = found.failed;
    out["status"] = found.status;
    out["vendor"] = found.vendor;
    out["completed"] = found.completed;
    out["doorbell"] = bytes_of(&bench.cq_doorbell, 8);
    result = out;
  });
  return result;
}

}  // namespace

void bind_ibgda(py::module_& module) {
  py::module_ m =
      module.def_submodule("ibgda", "Queue formats of RDMA NICs, as device code writes and reads them.");
  m.def("encode", &encode, py::arg("family"), py::kw_only(), py::arg("position"), py::arg("depth"),
        py::arg("qpn"), py::arg("op"), py::arg("flags"), py::arg("length"), py::arg("immediate"),
        py::arg("local"), py::arg("remote"), py::arg("lkey"), py::arg("rkey"), py::arg("value"),
        py::arg("compare"), py::arg("value_mask"), py::arg("compare_mask"), py::arg("payload"),
        py::arg("packets"), py::arg("mtu"),
        "The entry, record and doorbell of one request at a position (units since the queue was made).");
  m.def("take", &take, py::arg("family"), py::arg("completion"), py::kw_only(), py::arg("consumed"),
        py::arg("cq_depth"), py::arg("depth"), py::arg("completed"), py::arg("completed_messages"),
        py::arg("published"), py::arg("cqn"),
        "What a completion says: None if it is not there yet, else failed, status, vendor, completed.");
}
