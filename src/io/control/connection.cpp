// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/control/connection.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "src/io/control/socket.hpp"
#include "src/io/control/wire.hpp"

namespace mori::io::control {
namespace {

constexpr size_t kMaxQueued = 64 << 20;  ///< more that a peer does not take is a peer that is lost
constexpr size_t kReadBytes = 64 << 10;

ssize_t send_with_fds(int socket, const char* data, size_t bytes, const std::vector<Fd>& fds) {
  iovec piece{const_cast<char*>(data), bytes};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char room[CMSG_SPACE(kMaxFds * sizeof(int))] = {};
  if (!fds.empty()) {
    int numbers[kMaxFds];
    for (size_t i = 0; i < fds.size(); ++i) numbers[i] = fds[i].get();
    message.msg_control = room;
    message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
    cmsghdr* head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
    std::memcpy(CMSG_DATA(head), numbers, fds.size() * sizeof(int));
  }
  return ::sendmsg(socket, &message, MSG_NOSIGNAL);
}

}  // namespace

bool Connection::send(Type type, std::string_view payload, std::vector<Fd> fds) {
  std::lock_guard lock(mutex_);
  if (broken()) return false;
  Out out{seal(send_key_, send_sequence_++, type, static_cast<uint8_t>(fds.size()), payload), 0,
          std::move(fds)};
  queued_bytes_ += out.bytes.size();
  queue_.push_back(std::move(out));
  if (queue_.size() == 1 && push()) return true;
  if (queued_bytes_ > kMaxQueued && !broken()) {
    reason_ = "it takes no messages: " + std::to_string(queued_bytes_ >> 20) + " MiB wait for it";
    broken_.store(true, std::memory_order_release);
    ::shutdown(fd_.get(), SHUT_RDWR);
    return false;
  }
  want_writable(true);
  return !broken();
}

bool Connection::push() {
  while (!queue_.empty()) {
    Out& out = queue_.front();
    static const std::vector<Fd> none;
    const ssize_t sent = send_with_fds(fd_.get(), out.bytes.data() + out.sent, out.bytes.size() - out.sent,
                                       out.sent == 0 ? out.fds : none);
    if (sent < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) return false;
      if (errno == ETOOMANYREFS) return false;  // too many descriptors in flight: the socket stays writable
      // What the peer said before it went is still to be read: the control thread finds the end itself.
      queue_.clear();
      queued_bytes_ = 0;
      return true;
    }
    out.fds.clear();
    out.sent += static_cast<size_t>(sent);
    queued_bytes_ -= static_cast<size_t>(sent);
    if (out.sent == out.bytes.size()) queue_.pop_front();
  }
  return true;
}

void Connection::want_writable(bool wanted) {
  if (wanted == wants_writable_ || !fd_) return;
  wants_writable_ = wanted;
  epoll_event event{};
  event.events = wanted ? uint32_t{EPOLLIN} | EPOLLOUT : uint32_t{EPOLLIN};
  event.data.u64 = id;
  ::epoll_ctl(epoll_, EPOLL_CTL_MOD, fd_.get(), &event);
}

void Connection::cut(const std::string& reason) {
  std::lock_guard lock(mutex_);
  if (broken()) return;
  reason_ = reason;
  broken_.store(true, std::memory_order_release);
  if (fd_) ::shutdown(fd_.get(), SHUT_RDWR);
}

std::string Connection::reason() const {
  std::lock_guard lock(mutex_);
  return reason_;
}

void Connection::watch() {
  std::lock_guard lock(mutex_);
  epoll_event event{};
  event.events = wants_writable_ ? uint32_t{EPOLLIN} | EPOLLOUT : uint32_t{EPOLLIN};
  event.data.u64 = id;
  ::epoll_ctl(epoll_, EPOLL_CTL_ADD, fd_.get(), &event);
}

void Connection::flush() {
  std::lock_guard lock(mutex_);
  if (push()) want_writable(false);
}

bool Connection::receive(const std::function<void(Frame&)>& take) {
  // A few reads at most, so that one chatty peer does not starve the others; epoll comes back.
  for (int round = 0; round < 32; ++round) {
    char data[kReadBytes];
    iovec piece{data, sizeof data};
    alignas(cmsghdr) char room[CMSG_SPACE(253 * sizeof(int))];
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = room;
    message.msg_controllen = sizeof room;
    const ssize_t got = ::recvmsg(fd_.get(), &message, MSG_CMSG_CLOEXEC);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return true;
    if (got <= 0) {
      cut(got == 0 ? "it ended the connection" : errno_text(errno));
      return false;
    }
    try {
      for (cmsghdr* head = CMSG_FIRSTHDR(&message); head; head = CMSG_NXTHDR(&message, head)) {
        if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS) continue;
        std::vector<Fd> fds;
        for (size_t at = 0; at + sizeof(int) <= head->cmsg_len - CMSG_LEN(0); at += sizeof(int)) {
          int number;
          std::memcpy(&number, CMSG_DATA(head) + at, sizeof number);
          fds.emplace_back(number);
        }
        for (Fd& fd : fds) parser_.feed(std::move(fd));
      }
      if (message.msg_flags & MSG_CTRUNC) throw Malformed("file descriptors were dropped: see ulimit -n");
      parser_.feed(std::string_view(data, static_cast<size_t>(got)));
      while (auto frame = parser_.next()) take(*frame);
    } catch (const Malformed& error) {
      cut(std::string("it sent ") + error.what());
      return false;
    }
  }
  return true;
}

void Connection::close() {
  std::lock_guard lock(mutex_);
  broken_.store(true, std::memory_order_release);
  queue_.clear();
  fd_.reset();  // leaves the epoll set by itself
}

}  // namespace mori::io::control
