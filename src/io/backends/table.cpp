// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/backends/table.hpp"

#include "src/io/backends/file/file.hpp"
#include "src/io/backends/loopback/loopback.hpp"
#include "src/io/backends/p2p/p2p.hpp"
#include "src/io/backends/rdma/rdma.hpp"
#include "src/io/backends/shm/shm_backend.hpp"
#include "src/io/backends/staged/staged.hpp"
#include "src/io/backends/tcp/tcp.hpp"

namespace mori::io {
namespace {

std::unique_ptr<Backend> make_shm(Host& host, const BackendOptions& options) {
  shm::Options shm;
  shm.map = options.flag("map", shm.map);
  shm.process_vm = options.flag("process_vm", shm.process_vm);
  shm.inline_bytes = uint64_t(options.integer("inline_bytes", int64_t(shm.inline_bytes), 0, INT64_MAX));
  return staged::stage(std::make_unique<shm::ShmBackend>(host, shm));
}

std::unique_ptr<Backend> make_tcp(Host& host, const BackendOptions& options) {
  return staged::stage(tcp::make_backend(host, options));
}

constexpr BackendRow kTable[] = {
    {"p2p", p2p::make_backend, true},  // before those that reach GPUs by way of host memory
    {"shm", make_shm, true},
    {"rdma", rdma::make_backend, true},
    {"file", file::make_backend, true},
    {"tcp", make_tcp, true},
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

}  // namespace mori::io
