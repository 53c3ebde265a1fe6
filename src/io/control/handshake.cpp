// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/control/handshake.hpp"

#include <algorithm>

#include "src/io/control/wire.hpp"

namespace mori::io::control {
namespace {

constexpr uint32_t kMagic = 0x4952'6f4d;  // "MoRI"

std::string frame(Step step, std::string body) {
  return Writer()
      .put(kMagic)
      .put(kVersion)
      .put(static_cast<uint8_t>(step))
      .put(uint8_t{0})
      .put(static_cast<uint32_t>(body.size()))
      .raw(body)
      .take();
}

std::string checked_name(std::string_view text, const char* what) {
  if (text.empty()) throw Malformed(std::string(what) + " is empty");
  return std::string(text);
}

bool flag(uint8_t value) {
  if (value > 1) throw Malformed("flag " + std::to_string(value));
  return value == 1;
}

}  // namespace

std::string encode(const Hello& hello) {
  return frame(Step::hello, Writer()
                                .put(static_cast<uint8_t>(hello.kind))
                                .put(static_cast<uint8_t>(hello.has_secret))
                                .name(hello.engine)
                                .put(hello.incarnation)
                                .put(hello.nonce)
                                .name(hello.target)
                                .put(hello.target_incarnation)
                                .name(hello.listen_host)
                                .put(hello.listen_port)
                                .name(hello.backend)
                                .take());
}

std::string encode(const Challenge& challenge) {
  return frame(Step::challenge, Writer()
                                    .put(static_cast<uint8_t>(challenge.has_secret))
                                    .name(challenge.engine)
                                    .put(challenge.incarnation)
                                    .put(challenge.nonce)
                                    .put(challenge.host_proof)
                                    .name(challenge.unix_name)
                                    .take());
}

std::string encode_proof(Step step, const Digest& proof) { return frame(step, Writer().put(proof).take()); }

std::string encode(const Refusal& refusal) {
  const std::string_view words = std::string_view(refusal.message).substr(0, 1024);
  return frame(Step::refusal, Writer().put(static_cast<int32_t>(refusal.code)).text(words).take());
}

size_t message_bytes(std::string_view data) {
  if (data.size() < kHandshakeHeader) {
    if (data.size() >= 4 && Reader(data).get<uint32_t>() != kMagic)
      throw Malformed("it does not speak MoRI's protocol");
    return 0;
  }
  Reader reader(data);
  if (reader.get<uint32_t>() != kMagic) throw Malformed("it does not speak MoRI's protocol");
  if (const auto version = reader.get<uint16_t>(); version != kVersion)
    throw Malformed("it speaks version " + std::to_string(version) +
                    " of the protocol, this engine version " + std::to_string(kVersion));
  reader.get<uint16_t>();
  const auto body = reader.get<uint32_t>();
  if (body > kMaxHandshake - kHandshakeHeader)
    throw Malformed("a handshake message of " + std::to_string(body) + " bytes");
  return kHandshakeHeader + body;
}

Message split(std::string_view message) {
  Reader reader(message);
  reader.raw(6);
  const auto step = reader.get<uint8_t>();
  if (step < 1 || step > 5 || reader.get<uint8_t>() != 0)
    throw Malformed("handshake step " + std::to_string(step));
  reader.raw(4);
  return {static_cast<Step>(step), reader.rest()};
}

Hello parse_hello(std::string_view body) {
  Reader reader(body);
  Hello hello;
  const auto kind = reader.get<uint8_t>();
  if (kind < 1 || kind > 2) throw Malformed("connection of kind " + std::to_string(kind));
  hello.kind = static_cast<Kind>(kind);
  hello.has_secret = flag(reader.get<uint8_t>());
  hello.engine = checked_name(reader.name(), "engine key");
  hello.incarnation = reader.get<uint64_t>();
  hello.nonce = reader.get_array<32>();
  hello.target = reader.name();
  hello.target_incarnation = reader.get<uint64_t>();
  hello.listen_host = reader.name();
  hello.listen_port = reader.get<uint16_t>();
  hello.backend = reader.name();
  reader.end();
  return hello;
}

Challenge parse_challenge(std::string_view body) {
  Reader reader(body);
  Challenge challenge;
  challenge.has_secret = flag(reader.get<uint8_t>());
  challenge.engine = checked_name(reader.name(), "engine key");
  challenge.incarnation = reader.get<uint64_t>();
  challenge.nonce = reader.get_array<32>();
  challenge.host_proof = reader.get_array<32>();
  challenge.unix_name = reader.name();
  reader.end();
  return challenge;
}

Digest parse_proof(std::string_view body) {
  Reader reader(body);
  const Digest proof = reader.get_array<32>();
  reader.end();
  return proof;
}

Refusal parse_refusal(std::string_view body) {
  Reader reader(body);
  Refusal refusal;
  const auto code = reader.get<int32_t>();
  const bool known =
      code > static_cast<int32_t>(StatusCode::err_begin) && code <= static_cast<int32_t>(StatusCode::err_io);
  refusal.code = known ? static_cast<StatusCode>(code) : StatusCode::err_transport;
  refusal.message = reader.text();
  // It comes from someone who proved nothing and goes to people's terminals.
  std::replace_if(
      refusal.message.begin(), refusal.message.end(), [](unsigned char c) { return c < 32 || c == 127; },
      '?');
  reader.end();
  return refusal;
}

Session::Session(const std::optional<std::string>& secret, std::string_view hello, std::string_view challenge)
    : secret_(secret.value_or("")), transcript_(sha256(Writer().text(hello).text(challenge).take())) {}

Digest Session::derive(std::string_view label) const {
  return hmac_sha256(secret_, Writer().name(label).put(transcript_).take());
}

MacKey Session::key(std::string_view label) const {
  const Digest digest = derive(label);
  MacKey key;
  std::copy_n(digest.begin(), key.size(), key.begin());
  return key;
}

}  // namespace mori::io::control
