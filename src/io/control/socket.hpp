// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Sockets of the control plane: listening, connecting and talking with a deadline, and what the kernel says
// about the other end. All sockets are non-blocking and close-on-exec.
#pragma once
#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "src/io/backend.hpp"

namespace mori::io::control {

/// "10.0.0.5 port 3000" for messages.
std::string place(const std::string& host, uint16_t port);

/// "EPIPE: Broken pipe"-like words of errno.
std::string errno_text(int error);

struct Listener {
  Fd fd;
  std::string host;  ///< numeric
  uint16_t port = 0;
};
Listener listen_tcp(const std::string& host, uint16_t port);

/// Throws PeerLost when nobody is there, TimeoutError.
Fd connect_tcp(const std::string& host, uint16_t port, Deadline deadline);

/// Abstract Unix sockets: no file, so nothing is left behind.
Fd listen_unix(const std::string& name);
/// Empty when nobody is there.
Fd connect_unix(const std::string& name);

/// Numeric address of the other end; empty for a Unix socket.
std::string peer_host(int fd);

struct Credentials {
  pid_t pid = 0;  ///< 0 = in another pid namespace
  uid_t uid = 0;
};
Credentials peer_credentials(int fd);

/// Low latency, and a dead host noticed by the kernel's keepalive (about 20 s) without any thread of ours.
void tune(int fd);

/// Whole messages on a non-blocking socket. Throw PeerLost, TimeoutError; `whom` is for the message.
void send_all(int fd, std::string_view bytes, Deadline deadline, const std::string& whom);
std::string receive_exactly(int fd, size_t bytes, Deadline deadline, const std::string& whom);

/// A text that two processes share only if they run under one kernel boot, pid and network namespace; empty
/// where /proc does not tell.
std::string host_identity();

/// Milliseconds for poll(): at least 0, -1 for no deadline.
int poll_ms(Deadline deadline);

}  // namespace mori::io::control
