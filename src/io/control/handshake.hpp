// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// How two engines prove to each other that they hold the same secret. Pure: bytes in, bytes out; sockets are
// elsewhere. docs/io_security.md says what it protects from.
//
//   dialer                                   listener
//   hello {who, whom, nonce}      ------>
//                                 <------    challenge {who, nonce, how to reach it on this host}
//   proof  HMAC(secret, "dialer" | transcript) ->
//                                 <------    done   HMAC(secret, "listener" | transcript), or refusal {code,
//                                 words}
//
// The transcript is the hash of hello and challenge as sent, so that names, incarnations and both nonces are
// covered; the labels keep a proof from being sent back, the nonces from being used twice. The keys of the
// frames that follow are HMACs of the same transcript. Who dials proves first: a scanner learns no proof.
#pragma once
#include <optional>
#include <string>

#include "src/io/control/mac.hpp"
#include "src/io/types.hpp"

namespace mori::io::control {

constexpr uint16_t kVersion = 1;
constexpr size_t kMaxHandshake = 2048;  ///< bytes of a message before the peer proved anything
constexpr size_t kHandshakeHeader = 12;

enum class Kind : uint8_t { control = 1, stream = 2 };
enum class Step : uint8_t { hello = 1, challenge = 2, proof = 3, done = 4, refusal = 5 };

struct Hello {
  Kind kind = Kind::control;
  bool has_secret = false;
  std::string engine;
  uint64_t incarnation = 0;
  Digest nonce{};
  std::string target;               ///< the engine that the dialer wants
  uint64_t target_incarnation = 0;  ///< 0 = any
  std::string listen_host;          ///< where the dialer listens itself
  uint16_t listen_port = 0;
  std::string backend;  ///< of a stream
};

struct Challenge {
  bool has_secret = false;
  std::string engine;
  uint64_t incarnation = 0;
  Digest nonce{};
  Digest host_proof{};    ///< sha256 of boot id, namespaces and nonce: only who shares them can compare
  std::string unix_name;  ///< abstract Unix socket of the listener; empty = none
};

struct Refusal {
  StatusCode code = StatusCode::err_denied;
  std::string message;
};

/// One message of the handshake, complete: header (magic, version, step, bytes) and body.
std::string encode(const Hello& hello);
std::string encode(const Challenge& challenge);
std::string encode_proof(Step step, const Digest& proof);
std::string encode(const Refusal& refusal);

struct Message {
  Step step;
  std::string_view body;
};
/// The whole length of the message that begins here, or 0 if its header is not complete. Throws Malformed.
size_t message_bytes(std::string_view data);
/// Throws Malformed.
Message split(std::string_view message);
Hello parse_hello(std::string_view body);
Challenge parse_challenge(std::string_view body);
Digest parse_proof(std::string_view body);
Refusal parse_refusal(std::string_view body);

/// What both sides compute from the messages as they went over the wire.
class Session {
 public:
  Session(const std::optional<std::string>& secret, std::string_view hello, std::string_view challenge);
  Digest dialer_proof() const { return derive("mori-io-1 dialer proves"); }
  Digest listener_proof() const { return derive("mori-io-1 listener proves"); }
  MacKey dialer_key() const { return key("mori-io-1 frames of the dialer"); }
  MacKey listener_key() const { return key("mori-io-1 frames of the listener"); }

 private:
  Digest derive(std::string_view label) const;
  MacKey key(std::string_view label) const;
  std::string secret_;
  Digest transcript_;
};

}  // namespace mori::io::control
