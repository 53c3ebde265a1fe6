// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Two software NICs of one process with TCP between them, and a socket that pretends to be one.
#pragma once
#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>

#include <functional>

#include "src/transport/ibgda/tcp/tcp_mover.hpp"
#include "tests/ibgda/softnic_bench.hpp"

namespace tcp = mori::ibgda::tcp;

constexpr uint64_t kRoom = 1 << 20;

inline uint64_t address(const void* p) { return reinterpret_cast<uint64_t>(p); }

/// Rank 0: a bench whose queue leads to rank 1 through `mover`.
struct Near {
  tcp::TcpMover mover;
  alignas(64) std::vector<unsigned char> room = std::vector<unsigned char>(kRoom);
  Bench bench;
  RegionKeys keys;

  Near(Family family, std::chrono::milliseconds timeout)
      : mover({.rank = 0, .world = 2, .timeout = timeout}), bench(family, {.mover = &mover}) {
    mover.add_queue(0, 1);
    keys = bench.nic.add_region(address(room.data()), room.size());
  }
  ~Near() { bench.nic.stop(); }

  Request request(Op op, uint64_t local, uint64_t remote, uint32_t length, uint32_t rkey) const {
    Request r;
    r.op = op;
    r.length = length;
    r.local = address(room.data()) + local;
    r.lkey = keys.local;
    r.remote = remote;
    r.rkey = rkey;
    return r;
  }
  /// The next completion has this fault.
  void expect(const std::string& who, Fault fault) {
    Completion c;
    const uint32_t wanted = status_of(bench.queue.family, fault);
    if (!bench.wait(c)) return complain(who + ": no completion");
    if (c.failed != (fault != Fault::none) || (c.failed && c.status != wanted))
      complain(who + ": status " + std::to_string(c.failed ? c.status : 0) + " instead of " +
               std::to_string(wanted));
  }
  void expect_trouble(const std::string& who, const std::string& words) const {
    const std::string said = mover.trouble(1);
    if (said.find("rank 1 at 127.0.0.1 port ") != 0 || said.find(words) == std::string::npos)
      complain(who + ": the trouble is '" + said + "'");
  }
};

/// Rank 1 with a room of its own.
struct Far {
  Arena arena;
  tcp::TcpMover mover{{.rank = 1, .world = 2}};
  SoftNic nic{[this](uint64_t bytes) { return arena(bytes); }};
  alignas(64) std::vector<unsigned char> room = std::vector<unsigned char>(kRoom);
  Queue back{};
  RegionKeys keys;

  explicit Far(Family family) {
    keys = nic.add_region(address(room.data()), room.size());
    mover.add_queue(nic.create_queue(&back, {.family = family, .mover = &mover}), 0);
  }
  ~Far() { nic.stop(); }
  uint64_t at(uint64_t offset) const { return address(room.data()) + offset; }
};

inline void join(Near& near, Far& far) {
  near.mover.connect(1, far.mover.door());
  far.mover.connect(0, near.mover.door());
  near.bench.nic.start();
  far.nic.start();
}

/// A socket in the hands of the test. Every wait ends after ten seconds.
struct Raw {
  core::Fd fd;

  static Raw dial(const tcp::Door& door) {
    Raw raw{tcp::dial(door.host, door.port, std::chrono::seconds(10), "the NIC")};
    return raw;
  }
  template <class T>
  void say(const T& plain) const {
    say(&plain, sizeof plain);
  }
  void say(const void* bytes, size_t count) const {
    const char* from = static_cast<const char*>(bytes);
    while (count > 0) {
      pollfd waiting{fd.get(), POLLOUT, 0};
      if (::poll(&waiting, 1, 10'000) <= 0) return complain("the NIC takes no bytes");
      const ssize_t sent = ::send(fd.get(), from, count, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent < 0) return;  // it hung up, as it may
      from += sent;
      count -= size_t(sent);
    }
  }
  /// False: the other side hung up.
  bool hear(void* bytes, size_t count) const {
    char* to = static_cast<char*>(bytes);
    while (count > 0) {
      pollfd waiting{fd.get(), POLLIN, 0};
      if (::poll(&waiting, 1, 10'000) <= 0) {
        complain("the NIC says nothing");
        return false;
      }
      const ssize_t came = ::recv(fd.get(), to, count, MSG_DONTWAIT);
      if (came <= 0) return false;
      to += came;
      count -= size_t(came);
    }
    return true;
  }
  bool closed() const {
    char byte;
    return !hear(&byte, 1);
  }
};

/// A listener in the place of rank 1's NIC. It has greeted when it is made.
struct Pretender {
  core::Fd listener;
  tcp::Door door{};
  Raw raw;

  explicit Pretender(Near& near, bool knows_secret = true) {
    listener = tcp::listen_at("127.0.0.1", door.port);
    std::memcpy(door.host, "127.0.0.1", 9);
    near.mover.connect(1, door);
    pollfd waiting{listener.get(), POLLIN, 0};
    ::poll(&waiting, 1, 10'000);
    raw.fd = core::Fd(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    tcp::Hello hello;
    if (!raw.hear(&hello, sizeof hello)) complain("no hello");
    hello.rank = 1;
    hello.secret = near.mover.door().secret;
    if (!knows_secret) hello.secret[5] ^= 1;
    raw.say(hello);
    near.bench.nic.start();
  }
};
