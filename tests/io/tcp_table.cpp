// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// A backend table with tcp alone, so that the programs of these tests compile in seconds.
#include "src/core/errors.hpp"
#include "src/io/backends/table.hpp"
#include "src/io/backends/tcp/tcp.hpp"

namespace mori::io {
namespace {

constexpr BackendRow kTable[] = {{"tcp", tcp::make_backend, true}};

}  // namespace

std::span<const BackendRow> backend_table() { return kTable; }

const BackendRow* find_backend(const std::string& name) { return name == "tcp" ? kTable : nullptr; }

}  // namespace mori::io
