// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// An engine with the tcp backend alone, driven by lines on stdin (fields separated by tabs). Its memories are
// files that the test maps too, so that Python makes and checks the bytes, also while this process is
// stopped.
//
//   memory PATH BYTES -> ID KEY | introduce KEY INC HOST PORT | session LOCAL KEY INC ID REGIONKEY BYTES -> N
//   go N write|read PATH COUNT TIMEOUT_MS -> STATUS | wait STATUS MS -> CODE US MESSAGE | cancel STATUS
//   bench N write|read PATH COUNT RUNS -> microseconds each | deregister ID MS | alive KEY MS | counters |
//   cpu
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <cstring>
#include <fstream>
#include <iostream>
#include <sstream>

#include "src/io/engine.hpp"

using namespace mori::io;

namespace {

using Fields = std::vector<std::string>;

struct Program {
  explicit Program(EngineOptions options) : engine(std::move(options)) {}
  Engine engine;
  std::vector<std::shared_ptr<Session>> sessions;
  std::vector<std::pair<std::shared_ptr<Status>, Clock::time_point>> statuses;

  struct List {
    std::vector<int64_t> local, remote, bytes;
    Ranges ranges() const { return {local, remote, bytes}; }
  };
  /// COUNT times three numbers of 8 bytes.
  static List read_list(const std::string& path, size_t count) {
    std::ifstream in(path, std::ios::binary);
    List list;
    for (size_t i = 0; i < count; ++i) {
      int64_t triple[3];
      in.read(reinterpret_cast<char*>(triple), sizeof triple);
      list.local.push_back(triple[0]);
      list.remote.push_back(triple[1]);
      list.bytes.push_back(triple[2]);
    }
    return list;
  }
  static Deadline in_ms(const std::string& text) {
    return Clock::now() + std::chrono::milliseconds(std::stoull(text));
  }
  static int64_t us_since(Clock::time_point start) {
    return std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - start).count();
  }
  static std::string hex(const RegionKey& key) {
    std::string text;
    for (uint8_t byte : key) {
      char two[3];
      std::snprintf(two, sizeof two, "%02x", byte);
      text += two;
    }
    return text;
  }
  static RegionKey unhex(const std::string& text) {
    RegionKey key{};
    for (size_t i = 0; i < key.size(); ++i)
      key[i] = static_cast<uint8_t>(std::stoul(text.substr(2 * i, 2), nullptr, 16));
    return key;
  }

  std::string run(const Fields& f) {
    const std::string& what = f.at(0);
    if (what == "memory") {
      const int fd = ::open(f.at(1).c_str(), O_RDWR);
      Region region;
      region.location = Location::cpu;
      region.bytes = std::stoull(f.at(2));
      void* at = ::mmap(nullptr, region.bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
      ::close(fd);
      region.address = reinterpret_cast<uint64_t>(at);
      const auto memory = engine.register_memory({region}).front();
      return std::to_string(memory->id) + "\t" + hex(memory->key);
    }
    if (what == "introduce") {
      engine.introduce({f.at(1), std::stoull(f.at(2)), f.at(3), static_cast<uint16_t>(std::stoi(f.at(4)))});
      return "";
    }
    if (what == "session") {
      RemoteRegion remote;
      remote.engine = f.at(2);
      remote.incarnation = std::stoull(f.at(3));
      remote.id = std::stoull(f.at(4));
      remote.key = unhex(f.at(5));
      remote.location = Location::cpu;
      remote.bytes = std::stoull(f.at(6));
      sessions.push_back(engine.session(std::stoull(f.at(1)), remote));
      return std::to_string(sessions.size() - 1);
    }
    if (what == "go") {
      const List list = read_list(f.at(3), std::stoull(f.at(4)));
      const auto start = Clock::now();
      SubmitOptions options;
      options.deadline = in_ms(f.at(5));
      if (f.size() > 6) options.notify = f.at(6);
      auto status = sessions.at(std::stoull(f.at(1)))
                        ->submit(f.at(2) == "read" ? Op::read : Op::write, list.ranges(), options);
      statuses.emplace_back(std::move(status), start);
      return std::to_string(statuses.size() - 1);
    }
    if (what == "wait") {
      auto& [status, start] = statuses.at(std::stoull(f.at(1)));
      const auto code = status->wait(in_ms(f.at(2)));
      return std::to_string(static_cast<int>(code)) + "\t" + std::to_string(us_since(start)) + "\t" +
             status->message();
    }
    if (what == "cancel") return statuses.at(std::stoull(f.at(1))).first->cancel() ? "stopping" : "over";
    if (what == "bench") {
      const List list = read_list(f.at(3), std::stoull(f.at(4)));
      std::string text;
      for (int i = std::stoi(f.at(5)); i > 0; --i) {
        const auto start = Clock::now();
        const auto status = sessions.at(std::stoull(f.at(1)))
                                ->submit(f.at(2) == "read" ? Op::read : Op::write, list.ranges(), {});
        if (status->wait(Clock::now() + std::chrono::seconds(20)) != StatusCode::success)
          throw std::runtime_error(status->message());
        text +=
            std::to_string(std::chrono::duration<double, std::micro>(Clock::now() - start).count()) + "\t";
      }
      return text;
    }
    if (what == "deregister") return engine.deregister_memory(std::stoull(f.at(1))), "";
    if (what == "alive") return engine.alive(f.at(1), in_ms(f.at(2))) ? "yes" : "no";
    if (what == "messages") {
      uint64_t dropped = 0;
      std::string text;
      for (auto& one : engine.take_notifications(dropped)) text += one.message + " ";
      return text;
    }
    if (what == "counters") {
      std::ostringstream text;
      for (auto& [name, values] : engine.counters())
        for (auto& [counter, value] : values)
          text << name << "_" << counter << "=" << static_cast<long long>(value) << " ";
      return text.str();
    }
    if (what == "cpu") {
      rusage usage{};
      ::getrusage(RUSAGE_SELF, &usage);
      return std::to_string((usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 +
                            usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
    }
    if (what == "close") return engine.close(), "";
    throw std::runtime_error("unknown command " + what);
  }
};

}  // namespace

/// KEY HOST PORT SECRET|- SAME_HOST OPTION=VALUE... (of the backend)
int main(int argc, char** argv) {
  EngineOptions options;
  options.key = argv[1];
  options.host = argv[2];
  options.port = static_cast<uint16_t>(std::stoi(argv[3]));
  if (std::strcmp(argv[4], "-") != 0) options.secret = argv[4];
  options.same_host = std::strcmp(argv[5], "1") == 0;
  std::map<std::string, std::string> backend;
  for (int i = 6; i < argc; ++i) {
    const std::string text = argv[i];
    backend[text.substr(0, text.find('='))] = text.substr(text.find('=') + 1);
  }
  Program program(options);
  program.engine.add_backend("tcp", BackendOptions(backend));
  std::cout << "ok\t" << program.engine.incarnation() << "\t" << program.engine.port() << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    Fields fields;
    std::istringstream in(line);
    for (std::string item; std::getline(in, item, '\t');) fields.push_back(item);
    try {
      const std::string answer = program.run(fields);
      std::cout << "ok\t" << answer << std::endl;
    } catch (const Refused& error) {
      std::cout << "Refused " << static_cast<int>(error.code) << "\t" << error.what() << std::endl;
    } catch (const std::exception& error) {
      std::cout << "Error\t" << error.what() << std::endl;
    }
  }
  program.sessions.clear();
  program.statuses.clear();
  program.engine.close();
  std::cout << "closed" << std::endl;
  return 0;
}
