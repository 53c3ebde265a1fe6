// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The listener's half of a handshake: a socket that has proved nothing yet. Bounded in bytes (kMaxHandshake),
// in time (the control plane's handshake timeout) and in number (kMaxIncoming; the oldest goes).
#pragma once
#include <functional>
#include <optional>
#include <string>

#include "src/io/control/control.hpp"
#include "src/io/control/handshake.hpp"
#include "src/io/control/socket.hpp"

namespace mori::io::control {

constexpr size_t kMaxIncoming = 64;

/// What the listener says of itself.
struct Identity {
  std::string engine;
  uint64_t incarnation = 0;
  std::optional<std::string> secret;
  std::string host_identity;  ///< empty: do not offer the Unix socket
  std::string unix_name;
};

Digest host_proof(const std::string& host_identity, const Digest& nonce);

class Incoming {
 public:
  Incoming(Fd fd, bool unix_socket, Credentials caller, Deadline until)
      : deadline(until), is_unix(unix_socket), credentials(caller), fd_(std::move(fd)) {}

  enum class Result { waiting, proven, failed, closed };
  /// Reads what has arrived and answers it. After `proven` the caller says done() or refuse().
  Result advance(const Identity& self);
  void done();
  void refuse(StatusCode code, const std::string& message);

  int fd() const { return fd_.get(); }
  Fd take() { return std::move(fd_); }
  const Hello& hello() const { return hello_; }
  const Session& session() const { return *session_; }

  const Deadline deadline;
  const bool is_unix;
  const Credentials credentials;

 private:
  Result take_message(const Identity& self, std::string_view message);
  bool reply(const std::string& message);

  Fd fd_;
  std::string in_;
  bool challenged_ = false;
  Hello hello_;
  std::optional<Session> session_;
};

}  // namespace mori::io::control
