// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// What goes over a tcp stream. Pure: bytes in, bytes out. docs/io_tcp.md has the protocol.
//
//   initiator -> owner   request: head (128 bytes: 80 fixed, the table's first 48), rest of the table, and
//   for a
//                        write the payload, segment after segment
//   owner -> initiator   reply (48 bytes) per request, in order: done | data, followed by a read's payload |
//                        refused, followed by words
//
// Requests count from 0 on each stream. Their MAC covers everything but the payload, so only who holds the
// stream's key can name memory, and nothing can be replayed.
#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "src/io/control/mac.hpp"
#include "src/io/control/wire.hpp"
#include "src/io/types.hpp"

namespace mori::io::tcp {

using control::MacKey;

constexpr size_t kFixedBytes = 80, kInlineTable = 48;
constexpr size_t kHeadBytes = kFixedBytes + kInlineTable;
constexpr size_t kReplyBytes = 48;
constexpr uint32_t kMaxPieces = 4096;         ///< segments of a request
constexpr uint64_t kMaxFrameBytes = 8 << 20;  ///< payload of a request
constexpr size_t kMaxWords = 1024;

/// A request as its receiver sees it. Of its segments only `remote` and `bytes` have a meaning.
struct Request {
  Op op = Op::read;
  bool uniform = false;  ///< all segments of one size: the table holds offsets only
  uint32_t pieces = 0;
  uint64_t number = 0;
  uint64_t region = 0;
  RegionKey key{};
  uint64_t bytes = 0;
  uint64_t uniform_bytes = 0;
  std::vector<Segment> segments;

  size_t table_bytes() const { return size_t{pieces} * (uniform ? 8 : 16); }
  /// What follows the head.
  size_t rest_bytes() const { return table_bytes() > kInlineTable ? table_bytes() - kInlineTable : 0; }
};

/// Head and rest of the table of `request`, whose segments are given.
std::string encode(const MacKey& key, const Request& request);
/// The fixed part, unproven: sizes are in bounds, nothing else is checked. Throws Malformed.
Request parse_head(std::string_view head);
/// Fills the segments once the whole table is there; checks MAC, number and sums. Throws Malformed.
void parse_table(const MacKey& key, std::string_view head, std::string_view rest, uint64_t expected_number,
                 Request& request);

enum class ReplyKind : uint8_t { done = 1, data = 2, refused = 3 };
struct Reply {
  ReplyKind kind = ReplyKind::done;
  StatusCode code = StatusCode::success;
  uint64_t number = 0;
  uint64_t bytes = 0;  ///< of the payload or the words that follow
};

/// `words` go after the head.
std::string encode(const MacKey& key, const Reply& reply, std::string_view words = {});
/// Unproven: sizes are in bounds. Throws Malformed.
Reply parse_reply(std::string_view head);
void check_reply(const MacKey& key, std::string_view head, std::string_view words, uint64_t expected_number);

}  // namespace mori::io::tcp
