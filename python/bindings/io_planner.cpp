// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// mori._core.io.planner: the planner's pure functions over lists of (local, remote, bytes), for their
// property tests.
#include "src/io/planner.hpp"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "python/bindings/io_arguments.hpp"

namespace py = pybind11;
using namespace mori::io;

namespace {

using Triple = std::tuple<uint64_t, uint64_t, uint64_t>;

std::vector<Segment> in(const std::vector<Triple>& triples) {
  std::vector<Segment> segments;
  for (const auto& [local, remote, bytes] : triples) segments.push_back({local, remote, bytes});
  return segments;
}

std::vector<Triple> out(const std::vector<Segment>& segments) {
  std::vector<Triple> triples;
  for (const Segment& s : segments) triples.emplace_back(s.local, s.remote, s.bytes);
  return triples;
}

}  // namespace

void bind_io_planner(py::module_& module) {
  py::module_ m = module.def_submodule("planner", "For tests.");
  m.def(
      "make_plan",
      [](const py::object& local, const py::object& remote, const py::object& bytes, uint64_t local_bytes,
         uint64_t remote_bytes, uint64_t local_base, uint64_t remote_base) {
        const Integers l("local_offsets", local), r("remote_offsets", remote), b("sizes", bytes);
        const Plan plan =
            make_plan({l.span(), r.span(), b.span()}, {local_bytes, remote_bytes, local_base, remote_base});
        return py::make_tuple(out(plan.segments), plan.bytes);
      },
      py::arg("local"), py::arg("remote"), py::arg("bytes"), py::arg("local_bytes"), py::arg("remote_bytes"),
      py::arg("local_base") = 0, py::arg("remote_base") = 0);
  m.def("count_planned",  // without the way back to Python, to be timed
        [](const py::object& local, const py::object& remote, const py::object& bytes, uint64_t window) {
          const Integers l("local_offsets", local), r("remote_offsets", remote), b("sizes", bytes);
          return make_plan({l.span(), r.span(), b.span()}, {window, window, 0, 0}).segments.size();
        });
  m.def("sort_by_remote", [](const std::vector<Triple>& triples) {
    auto segments = in(triples);
    sort_by_remote(segments);
    return out(segments);
  });
  m.def("cut", [](const std::vector<Triple>& triples, uint64_t max_bytes) {
    return out(cut(in(triples), max_bytes));
  });
  m.def("split",
        [](const std::vector<Triple>& triples, const std::vector<double>& weights, uint64_t granule) {
          std::vector<std::vector<Triple>> rails;
          for (const auto& rail : split(in(triples), weights, granule)) rails.push_back(out(rail));
          return rails;
        });
  m.def("is_part_of", [](bool write, const std::vector<Triple>& part, const std::vector<Triple>& whole) {
    return is_part_of(write ? Op::write : Op::read, in(part), in(whole));
  });
}
