// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/control/mac.hpp"

#include <sys/random.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <string>

#include "src/core/errors.hpp"

namespace mori::io::control {
namespace {

constexpr uint32_t kRound[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

uint32_t big32(const uint8_t* p) {
  return uint32_t{p[0]} << 24 | uint32_t{p[1]} << 16 | uint32_t{p[2]} << 8 | p[3];
}

}  // namespace

void Sha256::block(const uint8_t* data) {
  uint32_t w[64];
  for (int i = 0; i < 16; ++i) w[i] = big32(data + 4 * i);
  for (int i = 16; i < 64; ++i) {
    const uint32_t s0 = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ (w[i - 15] >> 3);
    const uint32_t s1 = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ (w[i - 2] >> 10);
    w[i] = w[i - 16] + s0 + w[i - 7] + s1;
  }
  auto [a, b, c, d, e, f, g, h] = state_;
  for (int i = 0; i < 64; ++i) {
    const uint32_t s1 = std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25);
    const uint32_t t1 = h + s1 + ((e & f) ^ (~e & g)) + kRound[i] + w[i];
    const uint32_t s0 = std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22);
    const uint32_t t2 = s0 + ((a & b) ^ (a & c) ^ (b & c));
    h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
  }
  const uint32_t sum[8] = {a, b, c, d, e, f, g, h};
  for (int i = 0; i < 8; ++i) state_[i] += sum[i];
}

Sha256& Sha256::update(const void* data, size_t bytes) {
  const auto* p = static_cast<const uint8_t*>(data);
  size_t held = bytes_ % 64;
  bytes_ += bytes;
  while (bytes > 0) {
    if (held == 0 && bytes >= 64) {
      block(p);
      p += 64, bytes -= 64;
      continue;
    }
    const size_t take = std::min(bytes, 64 - held);
    std::memcpy(buffer_.data() + held, p, take);
    held += take, p += take, bytes -= take;
    if (held == 64) {
      block(buffer_.data());
      held = 0;
    }
  }
  return *this;
}

Digest Sha256::finish() {
  const uint64_t bits = bytes_ * 8;
  const uint8_t one = 0x80, zero = 0;
  update(&one, 1);
  while (bytes_ % 64 != 56) update(&zero, 1);
  uint8_t length[8];
  for (int i = 0; i < 8; ++i) length[i] = static_cast<uint8_t>(bits >> (56 - 8 * i));
  update(length, 8);
  Digest digest;
  for (int i = 0; i < 32; ++i) digest[i] = static_cast<uint8_t>(state_[i / 4] >> (24 - 8 * (i % 4)));
  return digest;
}

Digest sha256(std::string_view text) { return Sha256().update(text).finish(); }

Digest hmac_sha256(std::string_view key, std::string_view text) {
  std::array<uint8_t, 64> inner{}, outer{};
  if (key.size() > 64) {
    const Digest short_key = sha256(key);
    std::memcpy(inner.data(), short_key.data(), short_key.size());
  } else {
    std::memcpy(inner.data(), key.data(), key.size());
  }
  for (int i = 0; i < 64; ++i) {
    outer[i] = inner[i] ^ 0x5c;
    inner[i] ^= 0x36;
  }
  const Digest first = Sha256().update(inner.data(), 64).update(text).finish();
  return Sha256().update(outer.data(), 64).update(first.data(), first.size()).finish();
}

SipMac::SipMac(const MacKey& key) {
  uint64_t k0, k1;
  std::memcpy(&k0, key.data(), 8);
  std::memcpy(&k1, key.data() + 8, 8);
  v0_ = k0 ^ 0x736f6d6570736575;
  v1_ = k1 ^ 0x646f72616e646f6d ^ 0xee;
  v2_ = k0 ^ 0x6c7967656e657261;
  v3_ = k1 ^ 0x7465646279746573;
}

void SipMac::rounds(int count) {
  while (count-- > 0) {
    v0_ += v1_, v1_ = std::rotl(v1_, 13) ^ v0_, v0_ = std::rotl(v0_, 32);
    v2_ += v3_, v3_ = std::rotl(v3_, 16) ^ v2_;
    v0_ += v3_, v3_ = std::rotl(v3_, 21) ^ v0_;
    v2_ += v1_, v1_ = std::rotl(v1_, 17) ^ v2_, v2_ = std::rotl(v2_, 32);
  }
}

void SipMac::word(uint64_t value) {
  v3_ ^= value;
  rounds(2);
  v0_ ^= value;
}

SipMac& SipMac::update(const void* data, size_t bytes) {
  const auto* p = static_cast<const uint8_t*>(data);
  for (; bytes > 0 && bytes_ % 8 != 0; --bytes) {
    tail_ |= uint64_t{*p++} << (8 * (bytes_++ % 8));
    if (bytes_ % 8 == 0) word(tail_), tail_ = 0;
  }
  for (; bytes >= 8; bytes -= 8, p += 8, bytes_ += 8) {
    uint64_t value;
    std::memcpy(&value, p, 8);
    word(value);
  }
  for (; bytes > 0; --bytes) tail_ |= uint64_t{*p++} << (8 * (bytes_++ % 8));
  return *this;
}

Mac SipMac::finish() {
  word(tail_ | bytes_ << 56);
  v2_ ^= 0xee;
  rounds(4);
  const uint64_t low = v0_ ^ v1_ ^ v2_ ^ v3_;
  v1_ ^= 0xdd;
  rounds(4);
  const uint64_t high = v0_ ^ v1_ ^ v2_ ^ v3_;
  Mac mac;
  std::memcpy(mac.data(), &low, 8);
  std::memcpy(mac.data() + 8, &high, 8);
  return mac;
}

bool equal_secret(const uint8_t* a, const uint8_t* b, size_t bytes) {
  volatile uint8_t difference = 0;
  for (size_t i = 0; i < bytes; ++i) difference = difference | (a[i] ^ b[i]);
  return difference == 0;
}

void fill_random(void* data, size_t bytes) {
  auto* p = static_cast<uint8_t*>(data);
  while (bytes > 0) {
    const ssize_t got = ::getrandom(p, bytes, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) throw core::TransportError("getrandom: " + std::string(std::strerror(errno)));
    p += got, bytes -= static_cast<size_t>(got);
  }
}

}  // namespace mori::io::control
