// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The dialer's half of the handshake, in the calling thread and with its deadline.
#include <unistd.h>

#include "src/io/control/impl.hpp"
#include "src/io/control/wire.hpp"

namespace mori::io::control {
namespace {

std::string hex(uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

std::string read_message(int fd, Deadline deadline, const std::string& whom) {
  std::string message = receive_exactly(fd, kHandshakeHeader, deadline, whom);
  try {
    const size_t bytes = message_bytes(message);
    return message + receive_exactly(fd, bytes - message.size(), deadline, whom);
  } catch (const Malformed& error) {
    throw Refused(StatusCode::err_transport, whom + ": " + error.what());
  }
}

/// The message's body if it is the step that is due.
std::string_view expect(Step step, const std::string& message, const std::string& whom) {
  const Message parts = split(message);
  if (parts.step == Step::refusal) {
    const Refusal refusal = parse_refusal(parts.body);
    throw Refused(refusal.code, whom + ": " + refusal.message);
  }
  if (parts.step != step) throw Malformed("a handshake message out of order");
  return parts.body;
}

}  // namespace

void Control::Impl::check_insecure(const std::string& host) const {
  if (!options_.secret && !options_.allow_insecure && !is_loopback(host))
    throw core::ConfigError(
        "host='" + host +
        "' is not this machine's loopback: give both engines the same secret (at least 16 "
        "bytes), or allow_insecure=True to do without");
}

Control::Impl::Dialled Control::Impl::dial(const Address& address, Kind kind, std::string_view backend,
                                           Deadline deadline) {
  check_insecure(address.host);
  return shake_hands(connect_tcp(address.host, address.port, deadline), address, kind, backend, deadline,
                     false);
}

Control::Impl::Dialled Control::Impl::shake_hands(Fd fd, const Address& address, Kind kind,
                                                  std::string_view backend, Deadline deadline, bool is_unix) {
  const std::string whom = "engine '" + address.engine + "' at " + place(address.host, address.port);
  Hello hello;
  hello.kind = kind;
  hello.has_secret = options_.secret.has_value();
  hello.engine = options_.engine;
  hello.incarnation = options_.incarnation;
  fill_random(hello.nonce.data(), hello.nonce.size());
  hello.target = address.engine;
  hello.target_incarnation = address.incarnation;
  hello.listen_host = listener_.host;
  hello.listen_port = listener_.port;
  hello.backend = backend;
  const std::string hello_bytes = encode(hello);
  send_all(fd.get(), hello_bytes, deadline, whom);
  try {
    const std::string challenge_bytes = read_message(fd.get(), deadline, whom);
    const Challenge challenge = parse_challenge(expect(Step::challenge, challenge_bytes, whom));
    if (challenge.has_secret != hello.has_secret)
      throw Refused(StatusCode::err_denied, whom + ": one engine has a secret and the other none");
    const bool here = !identity_.host_identity.empty() && !challenge.unix_name.empty() && !is_unix &&
                      challenge.host_proof == host_proof(identity_.host_identity, challenge.nonce);
    if (here && kind == Kind::control) {
      Fd local = connect_unix(challenge.unix_name);
      if (local && peer_credentials(local.get()).uid == ::geteuid() && peer_credentials(local.get()).pid > 0)
        return shake_hands(std::move(local), address, kind, backend, deadline, true);
    }
    const Session session(options_.secret, hello_bytes, challenge_bytes);
    send_all(fd.get(), encode_proof(Step::proof, session.dialer_proof()), deadline, whom);
    const std::string done = read_message(fd.get(), deadline, whom);
    if (!equal_secret(parse_proof(expect(Step::done, done, whom)), session.listener_proof()))
      throw Refused(StatusCode::err_denied, whom + ": it does not know the secret");
    // The listener refuses callers of somebody else; a listener that does not is none of ours.
    if (!address.engine.empty() && challenge.engine != address.engine)
      throw Refused(StatusCode::err_not_found, whom + ": engine '" + challenge.engine + "' lives there");
    if (address.incarnation != 0 && challenge.incarnation != address.incarnation)
      throw Refused(StatusCode::err_bad_state, whom + ": it lives as incarnation " +
                                                   hex(challenge.incarnation) + ", the descriptor is of " +
                                                   hex(address.incarnation));
    Dialled dialled;
    dialled.is_unix = is_unix;
    if (is_unix) dialled.credentials = peer_credentials(fd.get());
    dialled.host = is_unix ? std::string() : peer_host(fd.get());
    dialled.fd = std::move(fd);
    dialled.engine = challenge.engine;
    dialled.incarnation = challenge.incarnation;
    dialled.send_key = session.dialer_key();
    dialled.receive_key = session.listener_key();
    return dialled;
  } catch (const Malformed& error) {
    throw Refused(StatusCode::err_transport, whom + " sent " + error.what());
  }
}

std::shared_ptr<PeerState> Control::Impl::connect(const Address& address, Deadline deadline) {
  check_may_wait("connect()");
  if (address.engine.empty() || address.engine.size() > 255 || address.host.size() > 255)
    throw core::ConfigError("an engine's key and host have 1 to 255 bytes");
  const std::string key = address.engine + '\0' + std::to_string(address.incarnation);
  {
    std::unique_lock lock(mutex_);
    for (;;) {
      if (closing_) throw PeerLost("this engine is closed");
      if (auto peer = find(address)) {
        std::lock_guard peer_lock(peer->mutex);
        peer->dial_host = address.host;
        peer->dial_port = address.port;
        return peer;
      }
      if (dialling_.insert(key).second) break;
      const auto idle = [&] { return !dialling_.contains(key); };
      if (deadline == Deadline::max()) {
        dialled_.wait(lock, idle);
      } else if (!dialled_.wait_until(lock, deadline, idle)) {
        throw TimeoutError("engine '" + address.engine + "' did not answer before the deadline");
      }
    }
  }
  const auto over = [&] {
    std::lock_guard lock(mutex_);
    dialling_.erase(key);
    dialled_.notify_all();
  };
  try {
    Dialled d = dial(address, Kind::control, {}, deadline);
    auto peer =
        adopt(std::move(d.fd), d.is_unix, d.credentials, {d.engine, d.incarnation}, d.send_key, d.receive_key,
              d.host.empty() ? address.host : d.host, address.host, address.port, true);
    over();
    return peer;
  } catch (...) {
    over();
    throw;
  }
}

Stream Control::Impl::dial_stream(PeerState& peer, std::string_view backend, Deadline deadline) {
  Address address{peer.engine(), peer.incarnation(), {}, 0};
  {
    std::lock_guard lock(peer.mutex);
    address.host = peer.dial_host;
    address.port = peer.dial_port;
  }
  if (!peer.connected()) throw PeerLost("lost " + peer.name());
  Dialled d = dial(address, Kind::stream, backend, deadline);
  return {std::move(d.fd), d.send_key, d.receive_key};
}

}  // namespace mori::io::control
