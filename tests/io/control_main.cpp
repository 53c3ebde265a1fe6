// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// An engine's control plane alone, driven by lines on stdin, answering by lines on stdout; for the tests of
// tests/io/test_control*.py, which kill, stop and attack it. Fields are separated by tabs.
//
//   connect KEY INCARNATION HOST PORT MS | ask KEY TEXT MS | tell KEY TEXT | open KEY ID GOOD? MS | revoke ID
//   MS notify KEY UID TEXT | alive KEY MS | stream KEY TEXT MS | fds KEY MS | bye KEY | cpu | counters | lost
//   | notes
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <atomic>
#include <cstring>
#include <iostream>
#include <map>
#include <mutex>
#include <sstream>
#include <thread>

#include "src/io/control/control.hpp"

using namespace mori::io;
using control::Control;

namespace {

RegionKey key_of(uint64_t id) {
  RegionKey key{};
  key[0] = static_cast<uint8_t>(id);
  key[15] = 0x5a;
  return key;
}

/// Answers like a small engine; regions 1 to 9 exist until they are revoked.
struct Engine : control::Handler {
  std::mutex mutex;
  std::vector<std::string> log;
  std::map<std::string, std::shared_ptr<Peer>> peers;
  bool acknowledge_revokes = true;

  void note(std::string line) {
    std::lock_guard lock(mutex);
    log.push_back(std::move(line));
  }
  control::Attachments open(Peer&, uint64_t id, const RegionKey& key) override {
    if (id < 1 || id > 9) throw Refused(StatusCode::err_not_found, "no region " + std::to_string(id));
    if (key != key_of(id)) throw Refused(StatusCode::err_denied, "wrong key");
    return {{"tcp", "attachment " + std::to_string(id)}, {"shm", std::string(1000, 'x')}};
  }
  std::string answer(Peer& from, std::string_view backend, std::string_view request,
                     std::vector<Fd>& pass) override {
    if (request == "refuse") throw mori::core::TransportError("I will not");
    if (request == "fds") {
      for (int i = 0; i < 3; ++i) {
        Fd fd(::memfd_create("test", MFD_CLOEXEC));
        const std::string text = "memory " + std::to_string(i);
        if (::write(fd.get(), text.data(), text.size()) < 0) throw mori::core::TransportError("write");
        pass.push_back(std::move(fd));
      }
    }
    if (request == "big") return std::string(size_t{1} << 20, 'b');
    return std::string(backend) + ":" + std::string(request) + ":" + from.engine();
  }
  void told(Peer& from, std::string_view backend, std::string_view message) override {
    note("told\t" + from.engine() + "\t" + std::string(backend) + "\t" + std::string(message));
  }
  void accepted(Peer& from, std::string_view backend, Stream stream) override {
    note("accepted\t" + from.engine() + "\t" + std::string(backend));
    const std::string hello(reinterpret_cast<char*>(stream.send_key.data()), 16);
    ::send(stream.fd.get(), hello.data(), hello.size(), MSG_NOSIGNAL);
  }
  void revoked(Peer& owner, uint64_t id, std::function<void()> acknowledge) override {
    note("revoked\t" + owner.engine() + "\t" + std::to_string(id));
    if (acknowledge_revokes) std::thread(acknowledge).detach();
  }
  void notified(Peer& from, uint64_t uid, StatusCode, std::string message) override {
    note("notified\t" + from.engine() + "\t" + std::to_string(uid) + "\t" + message);
  }
  void lost(Peer& peer, const std::string& reason) override {
    note("lost\t" + peer.engine() + "\t" + reason);
  }
};

struct Field {
  std::vector<std::string> all;
  const std::string& text(size_t i) const { return all.at(i); }
  uint64_t number(size_t i) const { return std::stoull(all.at(i)); }
  Deadline deadline(size_t i) const { return Clock::now() + std::chrono::milliseconds(number(i)); }
};

std::string run(Control& plane, Engine& engine, const Field& f) {
  const std::string& what = f.text(0);
  const auto peer = [&]() -> Peer& { return *engine.peers.at(f.text(1)); };
  if (what == "connect") {
    const auto found =
        plane.connect({f.text(1), f.number(2), f.text(3), static_cast<uint16_t>(f.number(4))}, f.deadline(5));
    engine.peers[f.text(1)] = found;
    return std::to_string(found->incarnation()) + "\t" + (found->same_host() ? "here" : "away") + "\t" +
           std::to_string(found->pid()) + "\t" + found->address();
  }
  if (what == "ask") return peer().ask("tcp", f.text(2), f.deadline(3));
  if (what == "big") return std::to_string(peer().ask("tcp", "big", f.deadline(2)).size());
  if (what == "tell") return peer().tell("tcp", f.text(2)) ? "sent" : "down";
  if (what == "open") {
    const uint64_t id = f.number(2);
    RegionKey key = key_of(id);
    if (f.text(3) == "bad") key[3] ^= 1;
    std::string text;
    for (auto& [backend, bytes] :
         plane.open(peer(), id, key, f.number(4) ? f.number(4) : peer().incarnation(), f.deadline(5)))
      text += backend + "=" + std::to_string(bytes.size()) + " ";
    return text;
  }
  if (what == "revoke") {
    std::string text;
    for (auto& name : plane.revoke(f.number(1), f.deadline(2))) text += name + " ";
    return text;
  }
  if (what == "acknowledge") return engine.acknowledge_revokes = f.number(1) != 0, "";
  if (what == "notify") return plane.notify(peer(), f.number(2), StatusCode::success, f.text(3)), "";
  if (what == "alive") return plane.alive(peer(), f.deadline(2)) ? "yes" : "no";
  if (what == "stream") {
    Stream stream = peer().open_stream("tcp", f.deadline(2));
    const auto until = f.deadline(2);
    char key[16];
    size_t have = 0;
    while (have < 16 && Clock::now() < until) {
      const ssize_t got = ::recv(stream.fd.get(), key + have, 16 - have, 0);
      if (got > 0)
        have += static_cast<size_t>(got);
      else if (got == 0)
        return "closed";
      else
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return std::memcmp(key, stream.receive_key.data(), 16) == 0 ? "keys agree" : "keys differ";
  }
  if (what == "fds") {
    std::vector<Fd> fds;
    peer().ask("tcp", "fds", f.deadline(2), &fds);
    std::string text;
    for (Fd& fd : fds) {
      char data[64];
      const ssize_t got = ::pread(fd.get(), data, sizeof data, 0);
      text += std::string(data, got > 0 ? static_cast<size_t>(got) : 0) + " ";
    }
    return text;
  }
  if (what == "bye") return plane.disconnect(peer()), "";
  if (what == "cpu") {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    return std::to_string((usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 + usage.ru_utime.tv_usec +
                          usage.ru_stime.tv_usec);
  }
  if (what == "log") {
    std::lock_guard lock(engine.mutex);
    std::string text;
    for (auto& line : engine.log) text += line + "\x1e";
    engine.log.clear();
    return text;
  }
  if (what == "counters") {
    std::ostringstream text;
    for (auto& [name, value] : plane.counters()) text << name << "=" << value << " ";
    return text.str();
  }
  if (what == "fork") {
    const pid_t child = ::fork();
    if (child == 0) {
      int status = 1;
      try {
        peer().ask("tcp", "hello", f.deadline(2));
      } catch (const Refused& error) {
        status = error.code == StatusCode::err_bad_state ? 0 : 2;
      } catch (...) {
      }
      ::_exit(status);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    return WIFEXITED(status) ? std::to_string(WEXITSTATUS(status)) : "killed";
  }
  if (what == "daemon") {  // a child that keeps all sockets open after this process is gone
    if (::fork() == 0) {
      ::close(0), ::close(1), ::close(2);
      ::sleep(static_cast<unsigned>(f.number(1)));
      ::_exit(0);
    }
    return "";
  }
  throw std::runtime_error("unknown command " + what);
}

}  // namespace

/// KEY INCARNATION HOST PORT SECRET|- SAME_HOST HANDSHAKE_MS INSECURE
int main(int argc, char** argv) {
  if (argc < 9) return 2;
  control::Options options;
  options.engine = argv[1];
  options.incarnation = std::stoull(argv[2]);
  options.host = argv[3];
  options.port = static_cast<uint16_t>(std::stoi(argv[4]));
  if (std::strcmp(argv[5], "-") != 0) options.secret = argv[5];
  options.same_host = std::strcmp(argv[6], "1") == 0;
  options.handshake_timeout = std::chrono::milliseconds(std::stoi(argv[7]));
  options.allow_insecure = std::strcmp(argv[8], "1") == 0;
  Engine engine;
  std::unique_ptr<Control> plane;
  try {
    plane = std::make_unique<Control>(options, engine);
  } catch (const mori::core::ConfigError& error) {
    std::cout << "ConfigError\t" << error.what() << std::endl;
    return 0;
  }
  std::cout << "ok\t" << plane->host() << "\t" << plane->port() << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    Field field;
    std::istringstream in(line);
    for (std::string item; std::getline(in, item, '\t');) field.all.push_back(item);
    if (field.all.empty()) continue;
    try {
      const std::string answer = run(*plane, engine, field);
      std::cout << "ok\t" << answer << std::endl;
    } catch (const Refused& error) {
      std::cout << "Refused " << static_cast<int>(error.code) << "\t" << error.what() << std::endl;
    } catch (const TimeoutError& error) {
      std::cout << "TimeoutError\t" << error.what() << std::endl;
    } catch (const PeerLost& error) {
      std::cout << "PeerLost\t" << error.what() << std::endl;
    } catch (const mori::core::ConfigError& error) {
      std::cout << "ConfigError\t" << error.what() << std::endl;
    } catch (const std::exception& error) {
      std::cout << "Error\t" << error.what() << std::endl;
    }
  }
  engine.peers.clear();
  plane.reset();
  std::cout << "closed" << std::endl;
  return 0;
}
