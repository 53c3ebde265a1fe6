// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/backends/rdma/rdma.hpp"

#include "src/core/errors.hpp"
#include "src/io/backends/rdma/rdma_backend.hpp"

namespace mori::io::rdma {
namespace {

std::vector<std::string> split(const std::string& text) {
  std::vector<std::string> names;
  std::string name;
  for (const char c : text + ",") {
    if (c != ',' && c != ' ') {
      name += c;
    } else if (!name.empty()) {
      names.push_back(std::move(name));
      name.clear();
    }
  }
  return names;
}

}  // namespace

Config config_from(const BackendOptions& options) {
  Config c;
  const auto number = [&](const char* name, auto& field, int64_t least, int64_t most) {
    field = static_cast<std::remove_reference_t<decltype(field)>>(
        options.integer(name, int64_t(field), least, most));
  };
  const auto milliseconds = [&](const char* name, std::chrono::milliseconds& field) {
    field = std::chrono::milliseconds(options.integer(name, field.count(), 1, 600'000));
  };
  constexpr int64_t kMany = int64_t(1) << 31;
  number("qp_per_transfer", c.qp_per_transfer, 1, kMaxQueuesPerRail);
  number("post_batch_size", c.post_batch_size, -1, 1 << 16);
  c.busy_poll = options.integer("poll_cq_mode", 0, 0, 1) == 0;
  c.chunking = options.flag("enable_transfer_chunking", c.chunking);
  number("chunk_bytes", c.chunk_bytes, 256, 1 << 30);
  number("max_chunks_per_transfer", c.max_chunks, 1, 1 << 30);
  number("num_nics_per_transfer", c.nics_per_transfer, 1, kMaxNics);
  number("max_send_wr", c.max_send_wr, 1, 1 << 16);
  number("max_cqe_num", c.max_cqe, 32, 1 << 22);
  number("max_msg_sge", c.max_sge, 1, 32);
  c.devices = split(options.text("devices", ""));
  number("spare_nics", c.spare_nics, 0, kMaxNics);
  number("gid_index", c.gid_index, -1, 255);
  number("port", c.port, 0, 255);
  number("mtu", c.mtu, 0, 4096);
  number("traffic_class", c.traffic_class, 0, 255);
  number("service_level", c.service_level, 0, 15);
  number("ack_timeout", c.timeout, 1, 31);
  number("retry_count", c.retry_count, 0, 7);
  number("inline_bytes", c.inline_bytes, 0, 4096);
  number("window_bytes", c.window_bytes, 4096, kMany * 512);
  number("max_recoveries", c.max_recoveries, 0, kMany);
  c.spin = std::chrono::microseconds(options.integer("spin_us", c.spin.count(), 0, 1'000'000));
  milliseconds("cancel_grace_ms", c.cancel_grace);
  milliseconds("quiesce_ms", c.quiesce);
  milliseconds("probe_ms", c.probe);
  milliseconds("retry_after_ms", c.retry_after);
  c.library = options.text("library", "");
  check(c);
  return c;
}

std::unique_ptr<Backend> make_backend(Host&, const BackendOptions& options) {
  auto backend = std::make_unique<RdmaBackend>(config_from(options));
  if (!backend->unavailable().empty()) throw core::TransportError(backend->unavailable());
  return backend;
}

std::vector<DeviceReport> examine(const Config& config, std::string* reason) {
  Nics nics(config);
  *reason = nics.reason();
  std::vector<DeviceReport> all;
  for (const std::string& name : nics.names()) {
    DeviceReport report;
    report.name = name;
    if (Nic* nic = nics.get(name, &report.problem)) {
      try {
        const Address address = nic->address();
        report.address = verbs::gid_text(address.gid);
        report.mtu = verbs::mtu_bytes(address.mtu);
        report.dmabuf = nic->v().reg_dmabuf_mr != nullptr;
      } catch (const core::TransportError& error) {
        report.problem = error.what();
      }
    }
    all.push_back(std::move(report));
  }
  return all;
}

}  // namespace mori::io::rdma
