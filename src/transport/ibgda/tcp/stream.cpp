// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/transport/ibgda/tcp/stream.hpp"

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace mori::ibgda::tcp {
namespace {

constexpr int kPieces = 32;               // of one call
constexpr uint64_t kAtOnce = 4u << 20;    // bytes of one call, so that others have their turn
constexpr uint64_t kOwnBytes = 64 << 10;  // of a piece that is copied together

/// What a call on the socket did: bytes, 0 where it would have waited.
uint64_t moved(ssize_t result) {
  if (result >= 0) return uint64_t(result);
  if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) return 0;
  throw Broken{std::string("the connection broke: ") + std::strerror(errno)};
}

uint64_t received(ssize_t result) {
  if (result == 0) throw Broken{"it closed the connection"};
  return moved(result);
}

}  // namespace

void Outbox::add(const void* bytes, uint64_t count) {
  if (count == 0) return;
  if (pieces_.empty() || pieces_.back().own.empty() || pieces_.back().own.size() >= kOwnBytes) {
    pieces_.emplace_back();
    pieces_.back().own.swap(spare_);
    pieces_.back().own.clear();
  }
  const char* from = static_cast<const char*>(bytes);
  pieces_.back().own.insert(pieces_.back().own.end(), from, from + count);
  waiting_ += count;
}

void Outbox::refer(uint64_t address, uint64_t count, uint32_t lkey) {
  if (count == 0) return;
  pieces_.emplace_back();
  pieces_.back().address = address;
  pieces_.back().bytes = count;
  pieces_.back().lkey = lkey;
  waiting_ += count;
}

uint64_t Outbox::send(int fd, const Regions& regions) {
  uint64_t total = 0;
  while (!pieces_.empty() && total < kAtOnce) {
    iovec list[kPieces];
    int count = 0;
    for (auto piece = pieces_.begin(); piece != pieces_.end() && count < kPieces; ++piece) {
      if (piece->own.empty() && !regions.local_holds(piece->lkey, piece->begin(), piece->left()))
        throw Broken{"memory that was being sent to it was unregistered"};
      list[count++] = {reinterpret_cast<void*>(piece->begin()), piece->left()};
    }
    msghdr message{};
    message.msg_iov = list;
    message.msg_iovlen = size_t(count);
    uint64_t sent = moved(::sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT));
    if (sent == 0) break;
    total += sent;
    waiting_ -= sent;
    while (sent > 0) {
      Piece& first = pieces_.front();
      const uint64_t taken = std::min(sent, first.left());
      first.sent += taken;
      sent -= taken;
      if (first.left() > 0) break;
      if (!first.own.empty()) spare_.swap(first.own);
      pieces_.pop_front();
    }
  }
  return total;
}

uint64_t Inbox::fill(int fd) {
  if (begin_ == end_) {
    begin_ = end_ = 0;
  } else if (begin_ > kBytes / 2) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  const uint64_t came = received(::recv(fd, buffer_.data() + end_, kBytes - end_, MSG_DONTWAIT));
  end_ += came;
  return came;
}

uint64_t Inbox::receive(int fd, uint64_t address, uint64_t count) {
  return received(::recv(fd, reinterpret_cast<void*>(address), std::min(count, kAtOnce), MSG_DONTWAIT));
}

}  // namespace mori::ibgda::tcp
