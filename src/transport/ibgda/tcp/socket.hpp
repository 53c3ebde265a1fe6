// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Sockets of the software NIC: numeric addresses, never blocking, closed on exec.
#pragma once
#include <chrono>
#include <cstdint>
#include <string>

#include "src/core/fd.hpp"

namespace mori::ibgda::tcp {

using Clock = std::chrono::steady_clock;

/// "10.0.0.5 port 3000"
std::string words(const std::string& host, uint16_t port);

/// Listens at the address, at a port that the system chooses. Throws ConfigError for what is no numeric
/// address, TransportError.
core::Fd listen_at(const std::string& host, uint16_t& port);
/// Throws TransportError: nobody there, or not within `time`. `whom` is for the message.
core::Fd dial(const std::string& host, uint16_t port, std::chrono::milliseconds time,
              const std::string& whom);
/// Low latency; data that nobody acknowledges for `time`, or a host that vanished, ends the connection.
void tune(int fd, std::chrono::milliseconds time);
/// The other end, in words.
std::string peer_words(int fd);

}  // namespace mori::ibgda::tcp
