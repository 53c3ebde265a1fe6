// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The plain moves that `mori bench io` measures against. Addresses and sizes come as numpy arrays of uint64.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "src/core/errors.hpp"
#include "src/io/bench/plain.hpp"

namespace py = pybind11;

namespace {
namespace plain = mori::io::plain;
using Words = py::array_t<uint64_t, py::array::c_style | py::array::forcecast>;
using without_gil = py::gil_scoped_release;

std::span<const uint64_t> span(const Words& words) { return {words.data(), size_t(words.size())}; }

void check(size_t a, size_t b) {
  if (a != b) throw mori::core::ConfigError("the arrays of blocks differ in length");
}
}  // namespace

void bind_io_bench(py::module_& module) {
  module.def(
      "plain_copy",
      [](const Words& from, const Words& to, const Words& bytes) {
        check(size_t(from.size()), size_t(bytes.size()));
        check(size_t(to.size()), size_t(bytes.size()));
        const plain::Blocks blocks{span(from), span(to), span(bytes)};
        const without_gil released;
        return plain::copy(blocks);
      },
      py::arg("source"), py::arg("to"), py::arg("bytes"), "Nanoseconds.");
  module.def(
      "plain_vm",
      [](const Words& from, const Words& to, const Words& bytes, int64_t pid, bool read) {
        check(size_t(from.size()), size_t(bytes.size()));
        check(size_t(to.size()), size_t(bytes.size()));
        const plain::Blocks blocks{span(from), span(to), span(bytes)};
        const without_gil released;
        return plain::vm(blocks, pid, read);
      },
      py::arg("source"), py::arg("to"), py::arg("bytes"), py::arg("pid"), py::arg("read"), "Nanoseconds.");
  const auto stream = [](uint64_t (*move)(int, const plain::Places&, double)) {
    return [move](int fd, const Words& address, const Words& bytes, double timeout_s) {
      check(size_t(address.size()), size_t(bytes.size()));
      const plain::Places blocks{span(address), span(bytes)};
      const without_gil released;
      return move(fd, blocks, timeout_s);
    };
  };
  module.def("plain_stream_out", stream(plain::stream_out), py::arg("fd"), py::arg("address"),
             py::arg("bytes"), py::arg("timeout_s"), "Nanoseconds.");
  module.def("plain_stream_in", stream(plain::stream_in), py::arg("fd"), py::arg("address"), py::arg("bytes"),
             py::arg("timeout_s"), "Nanoseconds.");
}
