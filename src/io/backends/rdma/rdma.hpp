// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The rdma backend as the engine's table sees it.
#pragma once
#include <memory>
#include <string>

#include "src/io/backends/rdma/config.hpp"
#include "src/io/backends/table.hpp"

namespace mori::io::rdma {

/// Options: the fields of RdmaBackendConfig (python/mori/io). Throws ConfigError for an option,
/// TransportError with the reason on a machine without an RDMA device.
std::unique_ptr<Backend> make_backend(Host& host, const BackendOptions& options);

/// The settings that options mean.
Config config_from(const BackendOptions& options);

/// What this machine has, for `mori doctor`: each device opened as the backend would.
struct DeviceReport {
  std::string name;
  std::string address;  ///< of its port; empty: not usable
  uint32_t mtu = 0;     ///< bytes
  bool dmabuf = false;  ///< the library can take GPU memory as a dma-buf
  std::string problem;
};
std::vector<DeviceReport> examine(const Config& config, std::string* reason);

}  // namespace mori::io::rdma
