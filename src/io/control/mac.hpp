// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// SHA-256 (FIPS 180-4), HMAC-SHA256 (RFC 2104) for the handshake, SipHash-2-4 with 128 bits of output for the
// frames after it: a keyed MAC that costs about 1 ns per byte. Own code so that the wheel links no crypto
// library; tests/io holds the published vectors.
#pragma once
#include <array>
#include <cstdint>
#include <string_view>

namespace mori::io::control {

using Digest = std::array<uint8_t, 32>;
using MacKey = std::array<uint8_t, 16>;
using Mac = std::array<uint8_t, 16>;

class Sha256 {
 public:
  Sha256& update(const void* data, size_t bytes);
  Sha256& update(std::string_view text) { return update(text.data(), text.size()); }
  Digest finish();

 private:
  void block(const uint8_t* data);
  std::array<uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<uint8_t, 64> buffer_{};
  uint64_t bytes_ = 0;
};

Digest sha256(std::string_view text);
Digest hmac_sha256(std::string_view key, std::string_view text);

/// SipHash-2-4-128 over pieces given one after the other.
class SipMac {
 public:
  explicit SipMac(const MacKey& key);
  SipMac& update(const void* data, size_t bytes);
  SipMac& update(std::string_view text) { return update(text.data(), text.size()); }
  Mac finish();

 private:
  void rounds(int count);
  void word(uint64_t value);
  uint64_t v0_, v1_, v2_, v3_;
  uint64_t tail_ = 0;
  uint64_t bytes_ = 0;
};

/// Takes the same time wherever the first difference is.
bool equal_secret(const uint8_t* a, const uint8_t* b, size_t bytes);
template <size_t N>
bool equal_secret(const std::array<uint8_t, N>& a, const std::array<uint8_t, N>& b) {
  return equal_secret(a.data(), b.data(), N);
}

/// Random bytes of the kernel.
void fill_random(void* data, size_t bytes);

}  // namespace mori::io::control
