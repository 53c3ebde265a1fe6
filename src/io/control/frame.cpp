// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/control/frame.hpp"

#include "src/io/control/wire.hpp"

namespace mori::io::control {

std::string seal(const MacKey& key, uint64_t sequence, Type type, uint8_t fds, std::string_view payload) {
  std::string head = Writer()
                         .put(static_cast<uint32_t>(payload.size()))
                         .put(static_cast<uint8_t>(type))
                         .put(fds)
                         .put(uint16_t{0})
                         .put(sequence)
                         .take();
  const Mac mac = SipMac(key).update(head).update(payload).finish();
  head.reserve(kFrameHeader + payload.size());
  head.append(reinterpret_cast<const char*>(mac.data()), mac.size());
  head.append(payload);
  return head;
}

void Parser::feed(Fd fd) {
  if (fds_.size() >= 4 * kMaxFds) throw Malformed("more file descriptors than frames carry");
  fds_.push_back(std::move(fd));
}

std::optional<Frame> Parser::next() {
  const std::string_view left = std::string_view(in_).substr(taken_);
  const auto wait_for_more = [&] {
    in_.erase(0, taken_);
    taken_ = 0;
    return std::nullopt;
  };
  if (left.size() < kFrameHeader) return wait_for_more();
  Reader reader(left);
  const auto bytes = reader.get<uint32_t>();
  const auto type = reader.get<uint8_t>();
  const auto fds = reader.get<uint8_t>();
  const auto zero = reader.get<uint16_t>();
  const auto sequence = reader.get<uint64_t>();
  const auto mac = reader.get_array<16>();
  if (bytes > kMaxFrame) throw Malformed("a frame of " + std::to_string(bytes) + " bytes");
  if (type < 1 || type > kTypes || zero != 0) throw Malformed("a frame of type " + std::to_string(type));
  if (fds > kMaxFds) throw Malformed("a frame with " + std::to_string(fds) + " file descriptors");
  if (sequence != sequence_) throw Malformed("a frame out of sequence");
  if (left.size() < kFrameHeader + bytes) return wait_for_more();
  const std::string_view payload = reader.raw(bytes);
  if (!equal_secret(mac, SipMac(key_).update(left.substr(0, 16)).update(payload).finish()))
    throw Malformed("a frame with a wrong MAC");
  if (fds_.size() < fds) throw Malformed("file descriptors of a frame are missing");
  Frame frame{static_cast<Type>(type), std::string(payload), {}};
  for (int i = 0; i < fds; ++i) {
    frame.fds.push_back(std::move(fds_.front()));
    fds_.pop_front();
  }
  ++sequence_;
  taken_ += kFrameHeader + bytes;
  return frame;
}

}  // namespace mori::io::control
