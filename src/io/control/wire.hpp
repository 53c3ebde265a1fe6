// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Bytes of messages: little-endian integers, strings with a length before them. The Reader is the only way in
// which received bytes are parsed: every step checks what is left and throws Malformed.
#pragma once
#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>

#include "src/core/errors.hpp"

namespace mori::io {

/// Received bytes that no correct peer sends; the connection that brought them is cut.
struct Malformed : core::TransportError {
  using core::TransportError::TransportError;
};

class Writer {
 public:
  template <class T>
  Writer& put(T value) {
    static_assert(std::is_integral_v<T>);
    char bytes[sizeof(T)];
    std::memcpy(bytes, &value, sizeof(T));
    out_.append(bytes, sizeof(T));
    return *this;
  }
  template <size_t N>
  Writer& put(const std::array<uint8_t, N>& bytes) {
    out_.append(reinterpret_cast<const char*>(bytes.data()), N);
    return *this;
  }
  /// What was checked to be below 256 bytes (names), or below 4 GiB.
  Writer& name(std::string_view text) {
    return put(static_cast<uint8_t>(text.size())).raw(text.substr(0, 255));
  }
  Writer& text(std::string_view text) { return put(static_cast<uint32_t>(text.size())).raw(text); }
  Writer& raw(std::string_view text) {
    out_.append(text);
    return *this;
  }
  std::string take() { return std::move(out_); }

 private:
  std::string out_;
};

class Reader {
 public:
  explicit Reader(std::string_view data) : data_(data) {}
  template <class T>
  T get() {
    static_assert(std::is_integral_v<T>);
    T value;
    std::memcpy(&value, raw(sizeof(T)).data(), sizeof(T));
    return value;
  }
  template <size_t N>
  std::array<uint8_t, N> get_array() {
    std::array<uint8_t, N> bytes;
    std::memcpy(bytes.data(), raw(N).data(), N);
    return bytes;
  }
  std::string_view name() { return raw(get<uint8_t>()); }
  std::string_view text() { return raw(get<uint32_t>()); }
  std::string_view raw(size_t bytes) {
    if (bytes > data_.size())
      throw Malformed("a message says " + std::to_string(bytes) + " bytes where " +
                      std::to_string(data_.size()) + " are left");
    const std::string_view piece = data_.substr(0, bytes);
    data_.remove_prefix(bytes);
    return piece;
  }
  std::string_view rest() { return raw(data_.size()); }
  void end() const {
    if (!data_.empty()) throw Malformed(std::to_string(data_.size()) + " bytes too many in a message");
  }

 private:
  std::string_view data_;
};

}  // namespace mori::io
