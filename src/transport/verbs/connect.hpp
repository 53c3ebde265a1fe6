// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// A reliable queue pair from RESET to READY TO SEND. Failures: core::TransportError, which begins with `who`.
#pragma once
#include <cstdint>
#include <string>

#include "src/transport/verbs/port.hpp"

namespace mori::verbs {

/// Both ends of a connection, and how the way between them is used.
struct Join {
  Port mine;
  Address theirs;
  uint32_t remote_number = 0;  ///< of the peer's queue pair
  uint32_t local_psn = 0;
  uint32_t remote_psn = 0;
  uint8_t reads = 1;   ///< reads and atomics of this side in flight
  uint8_t serves = 1;  ///< of the peer
  uint8_t traffic_class = 0;
  uint8_t service_level = 0;
  uint8_t timeout = 14;     ///< acknowledgement time-out: 4.096 us * 2^timeout
  uint8_t retry_count = 6;  ///< 7 is "for ever" on some NICs
  uint8_t hop_limit = 64;   ///< 1 would drop whatever is routed
};

/// `access`: AccessFlags that the peer gets.
void to_init(const Library& v, Qp* qp, uint8_t port, int access, const std::string& who);
void to_ready(const Library& v, Qp* qp, const Join& join, const std::string& who);

}  // namespace mori::verbs
