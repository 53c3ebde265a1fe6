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

int64_t BackendOptions::integer(const std::string& name, int64_t otherwise, int64_t least,
                                int64_t most) const {
  const auto found = values_.find(name);
  if (found == values_.end()) return otherwise;
  const int64_t value = std::stoll(found->second);
  if (value < least || value > most) throw core::ConfigError(name + "=" + found->second + " is out of range");
  return value;
}

}  // namespace mori::io
