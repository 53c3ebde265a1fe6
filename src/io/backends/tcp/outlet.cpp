// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/backends/tcp/outlet.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>

#include "src/io/backends/tcp/pair.hpp"
#include "src/io/control/socket.hpp"

namespace mori::io::tcp {
namespace {

constexpr size_t kIovecs = 1024;
constexpr uint64_t kCallBytes = 4 << 20;
constexpr size_t kFramesSent = 8;  ///< requests on a stream that await their reply
constexpr std::chrono::milliseconds kSettle{5};

/// How long after a reset until the owner has surely seen it: the reset's way, and a system call under way.
Clock::duration settle_time(int fd) {
  tcp_info info{};
  socklen_t bytes = sizeof info;
  if (::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &bytes) != 0) info.tcpi_rtt = 0;
  return kSettle + std::chrono::microseconds(2 * uint64_t{info.tcpi_rtt});
}

}  // namespace

void Outlet::enter(const std::shared_ptr<Outlet>& self) {
  loop_number_ = loop_.number();
  loop_.add(loop_number_, self, fd(), 0);
}

void Outlet::ready(uint32_t) {
  if (const auto pair = pair_.lock()) pair->on_ready(*this);
}

bool Outlet::drive(uint64_t budget) {
  bool progress = false;
  try {
    while (!broken_ && budget > 0) {
      const bool received = receive(budget);
      const bool sent = !broken_ && send(budget);
      if (!received && !sent) break;
      progress = true;
    }
  } catch (const Malformed& error) {
    ++counters_.malformed;
    fail(std::string("it sent ") + error.what());
  }
  return progress;
}

bool Outlet::receive(uint64_t& budget) {
  bool progress = false;
  while (!sent_.empty() && !broken_ && budget > 0) {
    if (reply_ && reply_->kind == ReplyKind::data) {
      Frame& frame = sent_.front();
      const uint64_t before = frame.cursor.left() + frame.discard;
      if (!receive_payload(frame)) return progress;
      const uint64_t left = frame.cursor.left() + frame.discard;
      budget -= std::min(budget, before - left);
      progress = true;
      if (left > 0) continue;
      // At once, not in the next turn: no event would announce it.
      books_.confirm(frame);
      answered();
      continue;
    }
    const size_t wanted = kReplyBytes + (reply_ ? reply_->bytes : 0);
    in_.resize(wanted);
    if (have_ < wanted) {
      const ssize_t got = ::recv(fd(), in_.data() + have_, wanted - have_, MSG_DONTWAIT);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0 && errno == EAGAIN) return progress;
      if (got <= 0) {
        fail(got == 0 ? "it closed the stream" : control::errno_text(errno));
        return true;
      }
      progress = true;
      have_ += static_cast<size_t>(got);
      if (have_ < wanted) continue;
    }
    const std::string_view all(in_);
    Frame& frame = sent_.front();
    if (!reply_) {
      reply_ = parse_reply(all);
      if (reply_->kind == ReplyKind::refused && reply_->bytes > 0) continue;
    }
    check_reply(stream_.receive_key, all.substr(0, kReplyBytes), all.substr(kReplyBytes), frame.number);
    const bool is_read = frame.is_read;
    if (reply_->kind == ReplyKind::data) {
      if (!is_read || reply_->bytes != frame.range.bytes) throw Malformed("data that nobody asked for");
      continue;
    }
    if (reply_->kind == ReplyKind::done) {
      if (is_read) throw Malformed("a read without its data");
      books_.confirm(frame);
    } else {
      books_.refuse(frame, reply_->code, std::string(all.substr(kReplyBytes)));
    }
    answered();
  }
  return progress;
}

void Outlet::answered() {
  confirmed_ = true;
  sent_.pop_front();
  reply_.reset();
  have_ = 0;
}

bool Outlet::receive_payload(Frame& frame) {
  ssize_t got;
  if (frame.work) {
    iovec pieces[kIovecs];
    msghdr message{};
    message.msg_iov = pieces;
    message.msg_iovlen = frame.cursor.fill(frame.work->job->local().address, pieces, kIovecs, 1 << 20);
    got = ::recvmsg(fd(), &message, MSG_DONTWAIT);
  } else {
    char waste[16 << 10];
    got = ::recv(fd(), waste, std::min<uint64_t>(sizeof waste, frame.discard), MSG_DONTWAIT);
  }
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  if (got <= 0) {
    fail(got == 0 ? "it closed the stream" : control::errno_text(errno));
    return false;
  }
  if (frame.work)
    frame.cursor.advance(static_cast<uint64_t>(got));
  else
    frame.discard -= static_cast<uint64_t>(got);
  return true;
}

bool Outlet::next_frame() {
  if (sent_.size() >= kFramesSent) return false;
  Frame frame;
  Request request;
  if (!books_.take(streams_, frame, request)) return false;
  request.number = frame.number = next_number_++;
  frame.is_read = request.op == Op::read;
  frame.head = encode(stream_.send_key, request);
  ++counters_.frames_sent;
  sending_ = std::move(frame);
  return true;
}

bool Outlet::send(uint64_t& budget) {
  bool progress = false;
  while (budget > 0 && (sending_ || next_frame())) {
    Frame& frame = *sending_;
    iovec pieces[kIovecs];
    size_t count = 0;
    if (frame.head_sent < frame.head.size())
      pieces[count++] = {frame.head.data() + frame.head_sent, frame.head.size() - frame.head_sent};
    if (!frame.is_read)
      count +=
          frame.cursor.fill(frame.work->job->local().address, pieces + count, kIovecs - count, kCallBytes);
    msghdr message{};
    message.msg_iov = pieces;
    message.msg_iovlen = count;
    const ssize_t sent = ::sendmsg(fd(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) return progress;
    if (sent < 0) {
      fail(control::errno_text(errno));
      return true;
    }
    progress = true;
    const size_t head = std::min(static_cast<size_t>(sent), frame.head.size() - frame.head_sent);
    frame.head_sent += head;
    const uint64_t payload = static_cast<uint64_t>(sent) - head;
    if (!frame.is_read) {
      frame.cursor.advance(payload);
      counters_.bytes_out += payload;
    }
    budget -= std::min(budget, static_cast<uint64_t>(sent));
    if (frame.head_sent < frame.head.size() || (!frame.is_read && frame.cursor.left() > 0)) continue;
    sent_.push_back(std::move(frame));
    sending_.reset();
  }
  return progress;
}

bool Outlet::holds(const Work& work) const {
  const auto is_its = [&](const Frame& frame) { return frame.work.get() == &work; };
  return (sending_ && is_its(*sending_)) || std::any_of(sent_.begin(), sent_.end(), is_its);
}

void Outlet::orphan_reads(const Work& work) {
  const auto release = [&](Frame& frame) {
    if (frame.is_read && frame.work.get() == &work) books_.orphan(frame);
  };
  if (sending_) release(*sending_);
  for (Frame& frame : sent_) release(frame);
}

void Outlet::cut(const std::string& reason) {
  if (broken_) return;
  ++counters_.streams_cut;
  fail(reason);
}

void Outlet::fail(const std::string& reason) {
  if (broken_) return;
  broken_ = true;
  reason_ = reason;
  ++counters_.streams_broken;
  const Deadline settled = Clock::now() + settle_time(fd());
  const linger reset{1, 0};  // close() sends a reset at once, whatever is still queued
  ::setsockopt(fd(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  loop_.remove(loop_number_);
  stream_.fd.reset();
  const auto back = [&](Frame& frame) {
    if (frame.work) ++counters_.frames_again;
    books_.give_back(frame, settled);
  };
  for (Frame& frame : sent_) back(frame);
  if (sending_) back(*sending_);
  sent_.clear();
  sending_.reset();
}

short Outlet::waits_for() const {
  if (broken_) return 0;
  const bool out = sending_ || (books_.waiting() && sent_.size() < kFramesSent);
  return static_cast<short>((out ? POLLOUT : 0) | (sent_.empty() ? 0 : POLLIN));
}

void Outlet::arm() {
  if (broken_) return;
  const short waits = waits_for();
  const uint32_t events = (waits & POLLIN ? EPOLLIN : 0u) | (waits & POLLOUT ? EPOLLOUT : 0u);
  if (events == 0 || (armed_ & events) == events) return;
  armed_ = events;
  loop_.set(loop_number_, fd(), events | EPOLLONESHOT);
}

void Outlet::disarm() {
  if (broken_ || armed_ == 0) return;
  armed_ = 0;
  loop_.set(loop_number_, fd(), EPOLLONESHOT);
}

void Outlet::forget_armed() { armed_ = 0; }

}  // namespace mori::io::tcp
