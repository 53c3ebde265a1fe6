// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Settings of the rdma backend. The first block are those of RdmaBackendConfig under the names that
// frameworks pass; the second are ours. docs/io_rdma.md says which ones are worth touching.
#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "src/core/topology/topology.hpp"
#include "src/io/types.hpp"
#include "src/transport/verbs/gpu_memory.hpp"

namespace mori::io::rdma {

using verbs::Dmabuf;

struct Config {
  uint32_t qp_per_transfer = 1;  ///< queue pairs per rail
  int32_t post_batch_size = -1;  ///< work requests per doorbell; -1 = 64
  bool busy_poll = true;         ///< POLLING: look for completions up to spin_us before sleeping
  bool chunking = false;         ///< cut at chunk_bytes; else at 1 MiB (and the port's longest message)
  uint64_t chunk_bytes = 65536;
  uint32_t max_chunks = 64;  ///< per transfer: longer chunks rather than more of them
  uint32_t nics_per_transfer = 1;
  uint32_t max_send_wr = 8192;  ///< per queue pair, as far as the NIC has them
  uint32_t max_cqe = 16384;     ///< per rail, as far as the NIC has them
  uint32_t max_sge = 4;

  std::vector<std::string> devices;  ///< names of NICs to use, best first; empty: topology chooses
  uint32_t spare_nics = 1;           ///< further NICs that memory is registered with, for failover
  int gid_index = -1;                ///< -1: RoCE v2 over IPv4 first (docs/io_rdma.md)
  uint8_t port = 0;                  ///< 0 = the first active one
  uint32_t mtu = 0;                  ///< bytes; 0 = what both ports can
  uint8_t traffic_class = 0;         ///< DSCP << 2 for RoCE
  uint8_t service_level = 0;
  uint8_t timeout = 14;             ///< acknowledgement time-out: 4.096 us * 2^timeout
  uint8_t retry_count = 6;          ///< 7 is "for ever" on some NICs, SoftRoCE among them
  uint32_t inline_bytes = 64;       ///< writes up to here travel within the work request
  uint64_t window_bytes = 8 << 20;  ///< in flight per queue pair
  uint32_t max_recoveries = 3;      ///< broken rails that one job survives
  std::chrono::microseconds spin{50};
  std::chrono::milliseconds cancel_grace{20};  ///< what is under way may end by itself, then it is broken off
  std::chrono::milliseconds quiesce{2000};     ///< for the peer's word that an old queue pair is gone
  std::chrono::milliseconds probe{3000};       ///< for the first write over a fresh rail

  std::chrono::milliseconds retry_after{5000};  ///< until a pair of NICs that failed is tried again

  // For tests: another library, another machine, other GPU memory.
  std::string library;
  std::optional<core::Topology> topology;
  std::function<std::optional<Dmabuf>(const Region&, std::string* why)> export_dmabuf;
};

/// Throws ConfigError naming the field, its value and what is allowed.
void check(const Config& config);

}  // namespace mori::io::rdma
