// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/backends/tcp/inlet.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>

namespace mori::io::tcp {
namespace {

constexpr size_t kIovecs = 512;
constexpr uint64_t kCallBytes = 1 << 20;  ///< about what one system call may move
constexpr uint64_t kTurnBytes = 4 << 20;  ///< then other streams have their turn

}  // namespace

void Inlet::enter(const std::shared_ptr<Inlet>& self) {
  events_ = EPOLLIN;
  in_.resize(kHeadBytes);
  number_ = loop_.number();
  loop_.add(number_, self, stream_.fd.get(), events_);
}

void Inlet::kill() {
  dead_.store(true, std::memory_order_release);
  loop_.post([] {});  // it looks at the socket, which shutdown() makes ready
  ::shutdown(stream_.fd.get(), SHUT_RDWR);
}

void Inlet::ready(uint32_t) {
  if (over()) return;
  turn_ = 0;
  try {
    while (turn_ < kTurnBytes && step()) {
    }
  } catch (const Malformed&) {
    ++counters_.malformed;
    stop();
  } catch (const std::exception&) {
    stop();
  }
  if (over()) return;
  const uint32_t wanted = stage_ == Stage::reply ? EPOLLOUT : EPOLLIN;
  if (wanted != events_) {
    events_ = wanted;
    loop_.set(number_, stream_.fd.get(), wanted);
  }
}

bool Inlet::stop() {
  over_.store(true, std::memory_order_release);
  ::shutdown(stream_.fd.get(), SHUT_RDWR);
  loop_.remove(number_);
  return false;
}

bool Inlet::again_or_stop(ssize_t result) {
  if (result < 0 && errno == EINTR) return true;
  if (result < 0 && errno == EAGAIN) return false;
  return stop();
}

bool Inlet::step() {
  if (dead_.load(std::memory_order_acquire)) return stop();
  switch (stage_) {
    case Stage::head:
      if (!fill(kHeadBytes)) return false;
      request_ = parse_head(in_);
      in_.resize(kHeadBytes + request_.rest_bytes());
      stage_ = Stage::table;
      return true;
    case Stage::table:
      return fill(in_.size()) && begin();
    case Stage::store:
      return store();
    case Stage::discard:
      return discard();
    case Stage::reply:
      return reply();
  }
  return false;
}

bool Inlet::fill(size_t bytes) {
  while (have_ < bytes) {
    const ssize_t got = ::recv(stream_.fd.get(), in_.data() + have_, bytes - have_, MSG_DONTWAIT);
    if (got > 0) {
      have_ += static_cast<size_t>(got);
    } else if (!again_or_stop(got)) {
      return false;
    }
  }
  return true;
}

std::shared_ptr<const Region> Inlet::region() const { return host_.region(request_.region, request_.key); }

bool Inlet::begin() {
  const std::string_view all(in_);
  parse_table(stream_.receive_key, all.substr(0, kHeadBytes), all.substr(kHeadBytes), expected_, request_);
  ++expected_;
  code_ = StatusCode::success;
  words_.clear();
  if (const auto memory = region(); !memory) {
    refuse(StatusCode::err_not_found, "no such memory is registered (any more), or the key is wrong");
  } else if (memory->location != Location::cpu) {
    refuse(StatusCode::err_invalid_args, "the memory is not host memory");
  } else {
    for (const Segment& segment : request_.segments)
      if (segment.remote > memory->bytes || segment.bytes > memory->bytes - segment.remote) {
        refuse(StatusCode::err_denied, "bytes " + std::to_string(segment.remote) + " to " +
                                           std::to_string(segment.remote + segment.bytes) +
                                           " are not inside the registered " + std::to_string(memory->bytes));
        break;
      }
  }
  cursor_ = Cursor(request_.segments, &Segment::remote, {0, 0, request_.bytes});
  if (request_.op == Op::write) {
    left_ = request_.bytes;
    stage_ = code_ == StatusCode::success ? Stage::store : Stage::discard;
    return true;
  }
  if (code_ == StatusCode::success)
    out_ = encode(stream_.send_key, {ReplyKind::data, StatusCode::success, request_.number, request_.bytes});
  else
    out_ = encode(stream_.send_key, {ReplyKind::refused, code_, request_.number, words_.size()}, words_);
  out_sent_ = 0;
  if (code_ != StatusCode::success) cursor_ = {};
  stage_ = Stage::reply;
  return true;
}

void Inlet::refuse(StatusCode code, const std::string& words) {
  code_ = code;
  words_ = words.substr(0, kMaxWords);
  ++counters_.frames_refused;
}

bool Inlet::store() {
  iovec pieces[kIovecs];
  const auto memory = region();
  if (!memory) {
    refuse(StatusCode::err_not_found, "the memory was deregistered during the transfer");
    left_ = cursor_.left();
    stage_ = Stage::discard;
    return true;
  }
  mmsghdr message{};
  message.msg_hdr.msg_iov = pieces;
  message.msg_hdr.msg_iovlen = cursor_.fill(memory->address, pieces, kIovecs, kCallBytes);
  const int got = ::recvmmsg(stream_.fd.get(), &message, 1, MSG_DONTWAIT, nullptr);
  if (got <= 0 || message.msg_len == 0) return again_or_stop(got < 0 ? -1 : 0);
  turn_ += message.msg_len;
  counters_.bytes_in += message.msg_len;
  cursor_.advance(message.msg_len);
  if (cursor_.left() == 0) answer_write();  // in the same turn: no event would announce it
  return true;
}

void Inlet::answer_write() {
  const ReplyKind kind = code_ == StatusCode::success ? ReplyKind::done : ReplyKind::refused;
  out_ = encode(stream_.send_key, {kind, code_, request_.number, words_.size()}, words_);
  out_sent_ = 0;
  cursor_ = {};
  stage_ = Stage::reply;
}

bool Inlet::discard() {
  while (left_ > 0) {
    char waste[16 << 10];
    const ssize_t got =
        ::recv(stream_.fd.get(), waste, std::min<uint64_t>(sizeof waste, left_), MSG_DONTWAIT);
    if (got > 0) {
      left_ -= static_cast<uint64_t>(got);
      turn_ += static_cast<uint64_t>(got);
    } else if (!again_or_stop(got)) {
      return false;
    }
    if (left_ > 0 && turn_ > kTurnBytes) return true;
  }
  answer_write();
  return true;
}

bool Inlet::reply() {
  iovec pieces[kIovecs];
  std::shared_ptr<const Region> memory;
  size_t count = 0;
  if (out_sent_ < out_.size()) pieces[count++] = {out_.data() + out_sent_, out_.size() - out_sent_};
  if (cursor_.left() > 0) {
    memory = region();
    if (!memory) return stop();  // the data that was announced cannot come any more
    count += cursor_.fill(memory->address, pieces + count, kIovecs - count, kCallBytes);
  }
  msghdr message{};
  message.msg_iov = pieces;
  message.msg_iovlen = count;
  const ssize_t sent = ::sendmsg(stream_.fd.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent < 0) return again_or_stop(sent);
  const size_t head = std::min(static_cast<size_t>(sent), out_.size() - out_sent_);
  out_sent_ += head;
  turn_ += static_cast<uint64_t>(sent);
  counters_.bytes_out += static_cast<uint64_t>(sent) - head;
  cursor_.advance(static_cast<uint64_t>(sent) - head);
  if (out_sent_ < out_.size() || cursor_.left() > 0) return true;
  ++counters_.frames_served;
  stage_ = Stage::head;
  have_ = 0;
  in_.resize(kHeadBytes);
  return true;
}

}  // namespace mori::io::tcp
