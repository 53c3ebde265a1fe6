// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/backends/tcp/frames.hpp"

#include <algorithm>

namespace mori::io::tcp {
namespace {

using control::SipMac;

constexpr size_t kMacAt = kFixedBytes - 16, kReplyMacAt = kReplyBytes - 16;

template <class T>
void store(char* at, T value) {
  std::memcpy(at, &value, sizeof value);
}

}  // namespace

std::string encode(const MacKey& key, const Request& request) {
  std::string out(kHeadBytes + request.rest_bytes(), '\0');
  char* at = out.data();
  store(at, static_cast<uint8_t>(request.op));
  store(at + 1, static_cast<uint8_t>(request.uniform));
  store(at + 4, request.pieces);
  store(at + 8, request.number);
  store(at + 16, request.region);
  std::memcpy(at + 24, request.key.data(), request.key.size());
  store(at + 40, request.bytes);
  store(at + 48, request.uniform_bytes);
  char* table = at + kFixedBytes;
  for (const Segment& segment : request.segments) {
    store(table, segment.remote);
    table += 8;
    if (request.uniform) continue;
    store(table, segment.bytes);
    table += 8;
  }
  const auto mac = SipMac(key).update(at, kMacAt).update(at + kFixedBytes, out.size() - kFixedBytes).finish();
  std::memcpy(at + kMacAt, mac.data(), mac.size());
  return out;
}

Request parse_head(std::string_view head) {
  Reader reader(head);
  Request request;
  const auto op = reader.get<uint8_t>();
  const auto uniform = reader.get<uint8_t>();
  if (op > 1 || uniform > 1 || reader.get<uint16_t>() != 0)
    throw Malformed("a request of kind " + std::to_string(op));
  request.op = static_cast<Op>(op);
  request.uniform = uniform == 1;
  request.pieces = reader.get<uint32_t>();
  request.number = reader.get<uint64_t>();
  request.region = reader.get<uint64_t>();
  request.key = reader.get_array<16>();
  request.bytes = reader.get<uint64_t>();
  request.uniform_bytes = reader.get<uint64_t>();
  if (request.pieces < 1 || request.pieces > kMaxPieces)
    throw Malformed("a request of " + std::to_string(request.pieces) + " segments");
  if (request.bytes < 1 || request.bytes > kMaxFrameBytes)
    throw Malformed("a request of " + std::to_string(request.bytes) + " bytes");
  return request;
}

void parse_table(const MacKey& key, std::string_view head, std::string_view rest, uint64_t expected_number,
                 Request& request) {
  if (head.size() != kHeadBytes || rest.size() != request.rest_bytes())
    throw Malformed("a request cut short");
  const auto mac =
      SipMac(key).update(head.substr(0, kMacAt)).update(head.substr(kFixedBytes)).update(rest).finish();
  if (!control::equal_secret(mac, Reader(head.substr(kMacAt)).get_array<16>()))
    throw Malformed("a request with a wrong MAC");
  if (request.number != expected_number) throw Malformed("a request out of sequence");
  Reader first(head.substr(kFixedBytes));
  Reader second(rest);
  request.segments.clear();
  request.segments.reserve(request.pieces);
  uint64_t sum = 0;
  size_t taken = 0;
  const auto next = [&] {
    taken += 8;
    return taken <= kInlineTable ? first.get<uint64_t>() : second.get<uint64_t>();
  };
  for (uint32_t i = 0; i < request.pieces; ++i) {
    Segment segment;
    segment.remote = next();
    segment.bytes = request.uniform ? request.uniform_bytes : next();
    if (segment.bytes < 1 || segment.bytes > request.bytes - sum)
      throw Malformed("a request whose segments are not as long as it says");
    sum += segment.bytes;
    request.segments.push_back(segment);
  }
  if (sum != request.bytes) throw Malformed("a request whose segments are not as long as it says");
}

std::string encode(const MacKey& key, const Reply& reply, std::string_view words) {
  std::string out(kReplyBytes, '\0');
  char* at = out.data();
  store(at, static_cast<uint8_t>(reply.kind));
  store(at + 4, static_cast<int32_t>(reply.code));
  store(at + 8, reply.number);
  store(at + 16, reply.bytes);
  const auto mac = SipMac(key).update(at, kReplyMacAt).update(words).finish();
  std::memcpy(at + kReplyMacAt, mac.data(), mac.size());
  return out.append(words);
}

Reply parse_reply(std::string_view head) {
  Reader reader(head);
  Reply reply;
  const auto kind = reader.get<uint8_t>();
  if (kind < 1 || kind > 3) throw Malformed("a reply of kind " + std::to_string(kind));
  reply.kind = static_cast<ReplyKind>(kind);
  reader.raw(3);
  const auto code = reader.get<int32_t>();
  reply.code =
      code > static_cast<int32_t>(StatusCode::err_begin) && code <= static_cast<int32_t>(StatusCode::err_io)
          ? static_cast<StatusCode>(code)
          : StatusCode::err_transport;
  reply.number = reader.get<uint64_t>();
  reply.bytes = reader.get<uint64_t>();
  const uint64_t limit = reply.kind == ReplyKind::done   ? 0
                         : reply.kind == ReplyKind::data ? kMaxFrameBytes
                                                         : kMaxWords;
  if (reply.bytes > limit) throw Malformed("a reply of " + std::to_string(reply.bytes) + " bytes");
  return reply;
}

void check_reply(const MacKey& key, std::string_view head, std::string_view words, uint64_t expected_number) {
  const auto mac = SipMac(key).update(head.substr(0, kReplyMacAt)).update(words).finish();
  if (!control::equal_secret(mac, Reader(head.substr(kReplyMacAt)).get_array<16>()))
    throw Malformed("a reply with a wrong MAC");
  if (parse_reply(head).number != expected_number) throw Malformed("a reply out of sequence");
}

}  // namespace mori::io::tcp
