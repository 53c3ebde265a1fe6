// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/control/incoming.hpp"

#include <sys/socket.h>

#include <cerrno>

#include "src/io/control/wire.hpp"

namespace mori::io::control {

Digest host_proof(const std::string& host_identity, const Digest& nonce) {
  return sha256(Writer().name("mori-io-1 host").text(host_identity).put(nonce).take());
}

Incoming::Result Incoming::advance(const Identity& self) {
  for (;;) {
    char data[kMaxHandshake];
    const ssize_t got = ::recv(fd_.get(), data, sizeof data, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return Result::waiting;
    if (got <= 0) return Result::closed;
    in_.append(data, static_cast<size_t>(got));
    try {
      const size_t bytes = message_bytes(in_);
      if (bytes == 0 || in_.size() < bytes) continue;
      // A correct dialer waits for our answer before it says more.
      if (in_.size() > bytes) return Result::failed;
      const Result result = take_message(self, in_);
      in_.clear();
      if (result != Result::waiting) return result;
    } catch (const Malformed& error) {
      refuse(StatusCode::err_transport, error.what());
      return Result::failed;
    }
  }
}

Incoming::Result Incoming::take_message(const Identity& self, std::string_view message) {
  const Message parts = split(message);
  if (!challenged_) {
    if (parts.step != Step::hello) throw Malformed("a proof before the hello");
    hello_ = parse_hello(parts.body);
    if (hello_.has_secret != self.secret.has_value()) {
      refuse(StatusCode::err_denied, self.secret
                                         ? "this engine asks for a secret; give both engines the same one"
                                         : "this engine has no secret; give both engines the same one");
      return Result::failed;
    }
    Challenge challenge{self.secret.has_value(), self.engine, self.incarnation, {}, {}, {}};
    fill_random(challenge.nonce.data(), challenge.nonce.size());
    if (!is_unix && hello_.kind == Kind::control && !self.host_identity.empty()) {
      challenge.host_proof = host_proof(self.host_identity, challenge.nonce);
      challenge.unix_name = self.unix_name;
    }
    const std::string bytes = encode(challenge);
    session_.emplace(self.secret, message, bytes);
    challenged_ = true;
    return reply(bytes) ? Result::waiting : Result::failed;
  }
  if (parts.step != Step::proof) throw Malformed("no proof after the challenge");
  if (!equal_secret(parse_proof(parts.body), session_->dialer_proof())) {
    refuse(StatusCode::err_denied, "the secrets differ");
    return Result::failed;
  }
  return Result::proven;
}

void Incoming::done() { reply(encode_proof(Step::done, session_->listener_proof())); }

void Incoming::refuse(StatusCode code, const std::string& message) { reply(encode(Refusal{code, message})); }

bool Incoming::reply(const std::string& message) {
  // The socket's buffer is empty: what does not fit at once belongs to a peer that plays games.
  return ::send(fd_.get(), message.data(), message.size(), MSG_NOSIGNAL) ==
         static_cast<ssize_t>(message.size());
}

}  // namespace mori::io::control
