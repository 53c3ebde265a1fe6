// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/backends/table.hpp"

#include <charconv>

#include "src/core/errors.hpp"
#include "src/io/backends/loopback/loopback.hpp"
#include "src/io/backends/shm/shm_backend.hpp"
#include "src/io/backends/tcp/tcp.hpp"

namespace mori::io {
namespace {

std::unique_ptr<Backend> make_shm(Host& host, const BackendOptions& options) {
  shm::Options shm;
  shm.map = options.flag("map", shm.map);
  shm.process_vm = options.flag("process_vm", shm.process_vm);
  shm.inline_bytes = uint64_t(options.integer("inline_bytes", int64_t(shm.inline_bytes), 0, INT64_MAX));
  return std::make_unique<shm::ShmBackend>(host, shm);
}

constexpr BackendRow kTable[] = {
    {"shm", make_shm, true},
    {"tcp", tcp::make_backend, true},
    {"loopback", loopback::make_backend, false},
    {"loopback2", loopback::make_second_backend, false},
};

}  // namespace

std::span<const BackendRow> backend_table() { return kTable; }

const BackendRow* find_backend(const std::string& name) {
  for (const BackendRow& row : kTable)
    if (name == row.name) return &row;
  return nullptr;
}

std::string BackendOptions::text(const std::string& name, const std::string& otherwise) const {
  const auto found = values_.find(name);
  return found == values_.end() ? otherwise : found->second;
}

int64_t BackendOptions::integer(const std::string& name, int64_t otherwise, int64_t least,
                                int64_t most) const {
  const auto found = values_.find(name);
  if (found == values_.end()) return otherwise;
  const std::string& word = found->second;
  int64_t value = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (error != std::errc{} || end != word.data() + word.size() || value < least || value > most)
    throw core::ConfigError(name + "=" + word + " is not a whole number from " + std::to_string(least) +
                            " to " + std::to_string(most));
  return value;
}

bool BackendOptions::flag(const std::string& name, bool otherwise) const {
  return integer(name, otherwise ? 1 : 0, 0, 1) != 0;
}

}  // namespace mori::io
