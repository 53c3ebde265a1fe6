// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/transport/ibgda/tcp/socket.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "src/core/errors.hpp"

namespace mori::ibgda::tcp {
namespace {

struct Address {
  sockaddr_storage storage{};
  socklen_t bytes = 0;
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};

Address parse(const std::string& host, uint16_t port) {
  Address address;
  auto* four = reinterpret_cast<sockaddr_in*>(&address.storage);
  auto* six = reinterpret_cast<sockaddr_in6*>(&address.storage);
  if (::inet_pton(AF_INET, host.c_str(), &four->sin_addr) == 1) {
    four->sin_family = AF_INET;
    four->sin_port = htons(port);
    address.bytes = sizeof *four;
  } else if (::inet_pton(AF_INET6, host.c_str(), &six->sin6_addr) == 1) {
    six->sin6_family = AF_INET6;
    six->sin6_port = htons(port);
    address.bytes = sizeof *six;
  } else {
    throw core::ConfigError("address='" + host + "': a numeric IPv4 or IPv6 address is allowed");
  }
  return address;
}

core::Fd make(const Address& address) {
  core::Fd fd(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) throw core::TransportError(std::string("socket: ") + std::strerror(errno));
  return fd;
}

void option(int fd, int level, int name, int value) { ::setsockopt(fd, level, name, &value, sizeof value); }

}  // namespace

std::string words(const std::string& host, uint16_t port) { return host + " port " + std::to_string(port); }

core::Fd listen_at(const std::string& host, uint16_t& port) {
  Address address = parse(host, 0);
  core::Fd fd = make(address);
  if (::bind(fd.get(), address.get(), address.bytes) != 0 || ::listen(fd.get(), SOMAXCONN) != 0 ||
      ::getsockname(fd.get(), address.get(), &address.bytes) != 0) {
    throw core::TransportError("the software NIC cannot listen at " + host + ": " + std::strerror(errno));
  }
  // the port is at the same place in both families' addresses
  port = ntohs(reinterpret_cast<sockaddr_in*>(&address.storage)->sin_port);
  return fd;
}

core::Fd dial(const std::string& host, uint16_t port, std::chrono::milliseconds time,
              const std::string& whom) {
  Address address = parse(host, port);
  core::Fd fd = make(address);
  const Clock::time_point until = Clock::now() + time;
  int error = ::connect(fd.get(), address.get(), address.bytes) == 0 ? 0 : errno;
  while (error == EINPROGRESS || error == EINTR) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - Clock::now()).count();
    pollfd waiting{fd.get(), POLLOUT, 0};
    const int ready = ::poll(&waiting, 1, int(std::clamp<int64_t>(left, 0, 1 << 30)));
    if (ready == 0) {
      throw core::TransportError(whom + " did not take the connection within " +
                                 std::to_string(time.count()) + " ms");
    }
    if (ready < 0) continue;
    socklen_t bytes = sizeof error;
    ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &bytes);
  }
  if (error != 0) throw core::TransportError(whom + " cannot be reached: " + std::strerror(error));
  return fd;
}

void tune(int fd, std::chrono::milliseconds time) {
  const int seconds = int(std::clamp<int64_t>(time.count() / 4000, 1, 30));
  option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, int(std::min<int64_t>(time.count(), 1 << 30)));
  option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  option(fd, IPPROTO_TCP, TCP_KEEPIDLE, seconds);
  option(fd, IPPROTO_TCP, TCP_KEEPINTVL, seconds);
  option(fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
}

std::string peer_words(int fd) {
  Address address;
  address.bytes = sizeof address.storage;
  if (::getpeername(fd, address.get(), &address.bytes) != 0) return "somebody who is gone";
  char text[INET6_ADDRSTRLEN] = "";
  const auto* four = reinterpret_cast<const sockaddr_in*>(&address.storage);
  const auto* six = reinterpret_cast<const sockaddr_in6*>(&address.storage);
  const bool is_four = address.storage.ss_family == AF_INET;
  const void* bytes = is_four ? static_cast<const void*>(&four->sin_addr) : &six->sin6_addr;
  ::inet_ntop(address.storage.ss_family, bytes, text, sizeof text);
  return words(text, ntohs(four->sin_port));
}

}  // namespace mori::ibgda::tcp
