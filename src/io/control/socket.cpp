// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/control/socket.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "src/io/control/control.hpp"

namespace mori::io::control {
namespace {

constexpr int kKeepIdle_s = 10, kKeepInterval_s = 3, kKeepProbes = 3, kUserTimeout_ms = 20000;

struct Addresses {
  addrinfo* first = nullptr;
  ~Addresses() {
    if (first) ::freeaddrinfo(first);
  }
};

/// Names are resolved by the C library, whose own time-outs apply.
void resolve(const std::string& host, uint16_t port, bool passive, Addresses& found) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = (passive ? AI_PASSIVE : 0) | AI_NUMERICSERV;
  const int error = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found.first);
  if (error != 0) throw core::ConfigError("host='" + host + "' is no address: " + ::gai_strerror(error));
}

std::string numeric(const sockaddr* address, socklen_t bytes, uint16_t* port = nullptr) {
  char host[NI_MAXHOST], service[NI_MAXSERV];
  if (::getnameinfo(address, bytes, host, sizeof host, service, sizeof service,
                    NI_NUMERICHOST | NI_NUMERICSERV))
    return {};
  if (port) *port = static_cast<uint16_t>(std::atoi(service));
  return host;
}

bool loopback(const sockaddr* address) {
  if (address->sa_family == AF_INET)
    return (ntohl(reinterpret_cast<const sockaddr_in*>(address)->sin_addr.s_addr) >> 24) == 127;
  if (address->sa_family == AF_INET6) {
    const auto& six = reinterpret_cast<const sockaddr_in6*>(address)->sin6_addr;
    return IN6_IS_ADDR_LOOPBACK(&six) || (IN6_IS_ADDR_V4MAPPED(&six) && six.s6_addr[12] == 127);
  }
  return false;
}

void option(int fd, int level, int name, int value) { ::setsockopt(fd, level, name, &value, sizeof value); }

sockaddr_un unix_address(const std::string& name, socklen_t& bytes) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const size_t length = std::min(name.size(), sizeof address.sun_path - 1);
  std::memcpy(address.sun_path + 1, name.data(), length);
  bytes = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + length);
  return address;
}

void wait_for(int fd, short events, Deadline deadline, const std::string& whom) {
  pollfd waiting{fd, events, 0};
  for (;;) {
    const int ready = ::poll(&waiting, 1, poll_ms(deadline));
    if (ready > 0) return;
    if (ready == 0) throw TimeoutError(whom + " did not answer before the deadline");
    if (errno != EINTR) throw core::TransportError("poll: " + errno_text(errno));
  }
}

}  // namespace

std::string place(const std::string& host, uint16_t port) { return host + " port " + std::to_string(port); }

std::string errno_text(int error) {
  return ::strerrordesc_np(error) ? ::strerrordesc_np(error) : "unknown error";
}

int poll_ms(Deadline deadline) {
  if (deadline == Deadline::max()) return -1;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(left, 0, 3'600'000));
}

bool is_loopback(const std::string& host) {
  Addresses found;
  resolve(host, 0, true, found);
  for (const addrinfo* a = found.first; a; a = a->ai_next)
    if (!loopback(a->ai_addr)) return false;
  return found.first != nullptr;
}

Listener listen_tcp(const std::string& host, uint16_t port) {
  Addresses found;
  resolve(host, port, true, found);
  int error = 0;
  for (const addrinfo* a = found.first; a; a = a->ai_next) {
    Fd fd(::socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd) {
      error = errno;
      continue;
    }
    option(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
    if (::bind(fd.get(), a->ai_addr, a->ai_addrlen) != 0 || ::listen(fd.get(), 128) != 0) {
      error = errno;
      continue;
    }
    sockaddr_storage bound{};
    socklen_t bytes = sizeof bound;
    ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&bound), &bytes);
    Listener listener{std::move(fd), {}, 0};
    listener.host = numeric(reinterpret_cast<sockaddr*>(&bound), bytes, &listener.port);
    return listener;
  }
  throw core::TransportError("cannot listen on " + place(host, port) + ": " + errno_text(error));
}

Fd connect_tcp(const std::string& host, uint16_t port, Deadline deadline) {
  Addresses found;
  resolve(host, port, false, found);
  int error = 0;
  for (const addrinfo* a = found.first; a; a = a->ai_next) {
    Fd fd(::socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd) {
      error = errno;
      continue;
    }
    if (::connect(fd.get(), a->ai_addr, a->ai_addrlen) != 0) {
      error = errno;
      if (error != EINPROGRESS) continue;
      wait_for(fd.get(), POLLOUT, deadline, place(host, port));
      socklen_t bytes = sizeof error;
      ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &bytes);
      if (error != 0) continue;
    }
    tune(fd.get());
    return fd;
  }
  throw PeerLost("cannot connect to " + place(host, port) + ": " + errno_text(error));
}

Fd listen_unix(const std::string& name) {
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  socklen_t bytes;
  const sockaddr_un address = unix_address(name, bytes);
  if (!fd || ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), bytes) != 0 ||
      ::listen(fd.get(), 128) != 0)
    return Fd();
  return fd;
}

Fd connect_unix(const std::string& name) {
  Fd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  socklen_t bytes;
  const sockaddr_un address = unix_address(name, bytes);
  if (!fd || ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), bytes) != 0) return Fd();
  return fd;
}

std::string peer_host(int fd) {
  sockaddr_storage address{};
  socklen_t bytes = sizeof address;
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&address), &bytes) != 0) return {};
  return address.ss_family == AF_UNIX ? std::string() : numeric(reinterpret_cast<sockaddr*>(&address), bytes);
}

Credentials peer_credentials(int fd) {
  ucred credentials{};
  socklen_t bytes = sizeof credentials;
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &bytes) != 0)
    return {0, static_cast<uid_t>(-1)};
  return {credentials.pid, credentials.uid};
}

void tune(int fd) {
  option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  option(fd, IPPROTO_TCP, TCP_KEEPIDLE, kKeepIdle_s);
  option(fd, IPPROTO_TCP, TCP_KEEPINTVL, kKeepInterval_s);
  option(fd, IPPROTO_TCP, TCP_KEEPCNT, kKeepProbes);
  option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, kUserTimeout_ms);
}

void send_all(int fd, std::string_view bytes, Deadline deadline, const std::string& whom) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent >= 0) {
      bytes.remove_prefix(static_cast<size_t>(sent));
    } else if (errno == EAGAIN) {
      wait_for(fd, POLLOUT, deadline, whom);
    } else if (errno != EINTR) {
      throw PeerLost(whom + " broke the connection: " + errno_text(errno));
    }
  }
}

std::string receive_exactly(int fd, size_t bytes, Deadline deadline, const std::string& whom) {
  std::string data(bytes, '\0');
  size_t have = 0;
  while (have < bytes) {
    const ssize_t got = ::recv(fd, data.data() + have, bytes - have, 0);
    if (got > 0) {
      have += static_cast<size_t>(got);
    } else if (got == 0) {
      throw PeerLost(whom + " closed the connection");
    } else if (errno == EAGAIN) {
      wait_for(fd, POLLIN, deadline, whom);
    } else if (errno != EINTR) {
      throw PeerLost(whom + " broke the connection: " + errno_text(errno));
    }
  }
  return data;
}

std::string host_identity() {
  std::string boot;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> boot;
  struct stat pids{}, net{};
  if (boot.empty() || ::stat("/proc/self/ns/pid", &pids) != 0 || ::stat("/proc/self/ns/net", &net) != 0)
    return {};
  return boot + " " + std::to_string(pids.st_ino) + " " + std::to_string(net.st_ino);
}

}  // namespace mori::io::control
