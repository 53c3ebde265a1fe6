// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Frames of an authenticated control connection: 32 bytes of header, then the payload.
//
//   u32 payload bytes | u8 type | u8 descriptors | u16 0 | u64 sequence | 16 bytes MAC(header's first 16,
//   payload)
//
// The sequence counts from 0 in each direction and is never sent twice under one key, so a frame cannot be
// replayed, dropped, reordered or reflected (the two directions have different keys) without being noticed.
#pragma once
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "src/io/control/mac.hpp"
#include "src/io/fd.hpp"

namespace mori::io::control {

constexpr size_t kFrameHeader = 32;
constexpr size_t kMaxMessage = 1 << 20;  ///< what users of the control plane may put into one message
constexpr size_t kMaxFrame = kMaxMessage + (4 << 10);  ///< with the words round it
constexpr size_t kMaxFds = 16;

enum class Type : uint8_t {
  answer = 1,     ///< u64 request, payload
  refuse = 2,     ///< u64 request, i32 code, words
  ask = 3,        ///< u64 request, backend, payload
  tell = 4,       ///< backend, payload
  open = 5,       ///< u64 request, u64 region, key, u64 incarnation
  let_go = 6,     ///< u64 region
  revoke = 7,     ///< u64 request, u64 region
  ping = 8,       ///< u64 request
  notify = 9,     ///< u64 number, u64 uid, i32 code, payload
  notified = 10,  ///< u64 number: all up to it were delivered
  bye = 11,
};
constexpr uint8_t kTypes = 11;

struct Frame {
  Type type;
  std::string payload;
  std::vector<Fd> fds;
};

/// Header and payload, ready to send.
std::string seal(const MacKey& key, uint64_t sequence, Type type, uint8_t fds, std::string_view payload);

/// Takes a byte stream apart. Holds at most one frame and what one read brought.
class Parser {
 public:
  explicit Parser(const MacKey& key) : key_(key) {}
  /// Received bytes, in any pieces.
  void feed(std::string_view bytes) { in_.append(bytes); }
  void feed(Fd fd);
  /// The next complete frame. Throws Malformed: cut the connection.
  std::optional<Frame> next();

 private:
  MacKey key_;
  uint64_t sequence_ = 0;
  std::string in_;
  size_t taken_ = 0;  ///< bytes of in_ that were frames already
  std::deque<Fd> fds_;
};

}  // namespace mori::io::control
