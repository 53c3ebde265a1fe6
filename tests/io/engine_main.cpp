// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The engine under a sanitizer: threads submit, wait, cancel and drop transfers over faulty loopback backends
// while memories and backends come and go, an engine restarts, and another is closed under them. Exits 0 if
// every transfer ended as it may.
#include <atomic>
#include <cstdio>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "src/io/backends/loopback/loopback.hpp"
#include "src/io/engine.hpp"
#include "src/io/errors.hpp"

namespace mori::io {
namespace {
constexpr BackendRow kTable[] = {{"loopback", loopback::make_backend, false},
                                 {"loopback2", loopback::make_second_backend, false}};
}  // namespace
std::span<const BackendRow> backend_table() { return kTable; }
const BackendRow* find_backend(const std::string& name) { return name == "loopback" ? kTable : kTable + 1; }
}  // namespace mori::io

using namespace mori::io;
using namespace std::chrono_literals;

namespace {

constexpr uint64_t kStripe = 1 << 14;
constexpr size_t kThreads = 4;
constexpr int kRounds = 150;

Region host_region(std::vector<uint8_t>& memory) {
  Region region;
  region.location = Location::cpu;
  region.address = reinterpret_cast<uint64_t>(memory.data());
  region.bytes = memory.size();
  return region;
}

RemoteRegion describe(const Engine& owner, const LocalMemory& memory, uint64_t address) {
  RemoteRegion remote;
  remote.engine = owner.key();
  remote.incarnation = owner.incarnation();
  remote.id = memory.id;
  remote.key = memory.key;
  remote.location = Location::cpu;
  remote.address = address;
  remote.bytes = memory.bytes;
  return remote;
}

std::unique_ptr<Engine> make(const char* key) {
  EngineOptions options;
  options.key = key;
  options.retries = 1000;
  options.trace_events = 1000;
  auto engine = std::make_unique<Engine>(options);
  engine->add_backend("loopback",
                      BackendOptions({{"mode", "1"}, {"fault_permille", "50"}, {"chunk_bytes", "500"}}));
  engine->add_backend("loopback2",
                      BackendOptions({{"fault_permille", "50"}, {"chunk_bytes", "500"}, {"seed", "2"}}));
  return engine;
}

bool one_round(std::mt19937& random, const Session& session, uint64_t start,
               std::shared_ptr<Status>& shared) {
  std::vector<int64_t> places(1 + random() % 16);
  for (size_t i = 0; i < places.size(); ++i) places[i] = int64_t(start + i * 1000);
  const int64_t size = int64_t(random() % 1000);
  SubmitOptions options;
  if (random() % 8 == 0) options.deadline = Clock::now() + std::chrono::microseconds(random() % 300);
  if (random() % 8 == 0) options.notify = "done";
  auto status = session.submit(random() % 2 ? Op::write : Op::read, {places, places, {&size, 1}}, options);
  std::atomic_store(&shared, status);
  if (random() % 8 == 0) status->cancel();
  const StatusCode code = status->wait(Clock::now() + 20s);  // before the next round uses its bytes
  return code != StatusCode::in_progress && code != StatusCode::init && code != StatusCode::err_invalid_args;
}

}  // namespace

int main() {
  std::vector<uint8_t> here(kThreads * kStripe), there(kThreads * kStripe);
  auto a = make("a"), b = make("b");
  auto mine = a->register_memory({host_region(here)})[0];
  auto theirs = b->register_memory({host_region(there)})[0];
  a->introduce({"b", b->incarnation(), b->host(), b->port()});
  const auto session = a->session(mine->id, describe(*b, *theirs, uint64_t(there.data())));

  std::atomic<int> wrong{0}, working{int(kThreads)};
  std::vector<std::shared_ptr<Status>> shared(kThreads);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      std::mt19937 random(unsigned(t + 1));
      for (int i = 0; i < kRounds; ++i) wrong += !one_round(random, *session, t * kStripe, shared[t]);
      --working;
    });
  threads.emplace_back([&] {  // waits for others' transfers
    while (working.load() > 0)
      for (auto& slot : shared)
        if (auto status = std::atomic_load(&slot)) status->wait(Clock::now() + 1ms);
  });
  threads.emplace_back([&] {  // memories of no one else, the backend, the books
    for (int i = 0; working.load() > 0; ++i) {
      std::vector<uint8_t> extra(4096);
      auto memory = b->register_memory({host_region(extra)})[0];
      auto another = a->session(mine->id, describe(*b, *memory, uint64_t(extra.data())));
      const int64_t zero = 0, size = 0;
      another->submit(Op::write, {{&zero, 1}, {&zero, 1}, {&size, 1}}, {})->wait(Clock::now() + 5s);
      b->deregister_memory(memory->id);
      if (i % 5 == 0) {
        a->remove_backend("loopback");
        a->add_backend("loopback",
                       BackendOptions({{"mode", "1"}, {"fault_permille", "50"}, {"chunk_bytes", "500"}}));
      }
      uint64_t dropped = 0;
      b->take_notifications(dropped);
      a->counters();
      a->trace().take();
      a->alive("b", Clock::now() + 1s);
      std::this_thread::sleep_for(1ms);
    }
  });
  for (auto& thread : threads) thread.join();
  threads.clear();

  // The peer goes, and then this engine, under transfers.
  const int64_t piece = int64_t(here.size() / 8);
  for (Engine* leaving : {b.get(), a.get()}) {
    std::vector<std::shared_ptr<Status>> statuses;
    for (int i = 0; i < 8; ++i) {  // apart from each other, since transfers do not order their bytes
      const int64_t start = i * piece;
      statuses.push_back(session->submit(Op::read, {{&start, 1}, {&start, 1}, {&piece, 1}}, {}));
    }
    threads.emplace_back([&] {
      for (auto& status : statuses) status->wait(Clock::now() + 20s);
    });
    leaving->close();
    threads.back().join();
    for (auto& status : statuses) wrong += !status->terminal();
  }
  const int64_t zero = 0;
  session->submit(Op::read, {{&zero, 1}, {&zero, 1}, {&piece, 1}}, {});
  std::printf("wrong %d\n", wrong.load());
  return wrong.load() == 0 ? 0 : 1;
}
