// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// A thread that is the NIC of toy.hpp: fetches what the doorbell names, checks it, executes it, poisons it
// and completes it, late if asked. Mistakes of the poster become sentences.
#pragma once
#include <atomic>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "src/transport/ibgda/types.hpp"
#include "tests/ibgda/toy_entry.hpp"

namespace mori::ibgda {

class ToyNic {
 public:
  struct Options {
    uint32_t queues = 1, depth = 64, cq_depth = 64;
    uint64_t first_position = 0;
    uint32_t late = 0;      ///< rounds by which completions come late, at most
    uint32_t slow = 0;      ///< rounds that pass before a doorbell is looked at, at most
    bool messages = true;   ///< entries have their line in the table
    uint64_t fail_at = ~0;  ///< entries of a queue before one fails
  };

  explicit ToyNic(const Options& options)
      : options_(options), queues_(options.queues), wires_(options.queues) {
    for (uint32_t i = 0; i < options.queues; ++i) {
      Wire& wire = wires_[i];
      wire.ring.resize(options.depth);
      memset(static_cast<void*>(wire.ring.data()), kPoison, options.depth * sizeof(ToyEntry));
      // a ring that is rewritten begins with a completion of the past
      const uint64_t past = 1 | ((options.first_position - 1) & 0xffffu) << 16 | uint64_t(1) << 32;
      wire.completions.assign(options.cq_depth, options.cq_depth == 1 ? past : 0);
      wire.messages.resize(kMessages);
      wire.doorbell = uint64_t(i) << 32 | (options.first_position & 0xffffu);
      wire.head = options.first_position;
      Queue& q = queues_[i];
      q = {};
      q.sq = address(wire.ring.data());
      q.cq = address(wire.completions.data());
      q.doorbell = address(&wire.doorbell);
      q.record = address(wire.record);
      q.cq_doorbell = address(&wire.consumed);
      q.msn = address(wire.messages.data());
      q.qpn = i;
      q.depth = options.depth;
      q.cq_depth = options.cq_depth;
      q.msn_entries = kMessages;
      q.first_position = q.reserved = q.published = q.rung = q.completed = options.first_position;
    }
    thread_ = std::thread([this] { run(); });
  }
  ~ToyNic() { stop(); }

  Queue* queues() { return queues_.data(); }
  /// Ends the thread; its counters may be read then.
  void stop() {
    stop_.store(true);
    if (!thread_.joinable()) return;
    thread_.join();
    for (uint32_t i = 0; i < options_.queues; ++i) {
      if (queues_[i].rings != 0) wrong(i, std::to_string(queues_[i].rings) + " doorbells went back");
    }
  }
  uint64_t executed() const { return executed_; }
  const std::vector<std::string>& violations() const { return violations_; }

 private:
  static constexpr int kPoison = 0xee;
  static constexpr uint32_t kMessages = 4096;
  struct Wire {
    std::vector<ToyEntry> ring;
    std::vector<uint64_t> completions;
    std::vector<uint64_t> messages;
    uint64_t doorbell = 0, consumed = 0;
    uint32_t record[2] = {};
    uint64_t head = 0;       ///< of what is executed
    uint64_t done = 0;       ///< entries
    uint64_t completed = 0;  ///< completions written
    uint32_t wait = 0;       ///< rounds until the next one
    uint32_t nap = 0;        ///< rounds until the doorbell is looked at
    bool dead = false;
    std::deque<uint64_t> late;
  };
  template <class T>
  static uint64_t address(T* p) {
    return reinterpret_cast<uint64_t>(p);
  }

  void wrong(uint32_t queue, const std::string& what) {
    wires_[queue].dead = true;
    if (violations_.size() < 8) violations_.push_back("queue " + std::to_string(queue) + ": " + what);
  }
  uint32_t random() {
    seed_ = seed_ * 6364136223846793005u + 1442695040888963407u;
    return uint32_t(seed_ >> 33);
  }

  void run() {
    while (!stop_.load()) {
      bool idle = true;
      for (uint32_t i = 0; i < options_.queues; ++i) idle &= !serve(i);
      if (idle) std::this_thread::yield();
    }
  }

  bool serve(uint32_t index) {
    Wire& wire = wires_[index];
    if (wire.dead) return false;
    if (wire.nap != 0) {
      --wire.nap;
      return complete(index, wire);
    }
    if (options_.slow != 0) wire.nap = random() % options_.slow;
    const uint64_t rung = __atomic_load_n(&wire.doorbell, __ATOMIC_ACQUIRE);
    const uint32_t record = __atomic_load_n(&wire.record[1], __ATOMIC_ACQUIRE);
    const uint32_t ahead = (uint32_t(rung) - uint32_t(wire.head)) & 0xffffu;
    if (rung >> 32 != index) wrong(index, "a doorbell of another queue");
    if (ahead > options_.depth)
      wrong(index,
            "the doorbell names " + std::to_string(ahead) + " units ahead of " + std::to_string(wire.head));
    if (ahead != 0 && ((record - uint32_t(rung)) & 0xffffu) > options_.depth)
      wrong(index, "the record is behind the register");
    const uint64_t end = wire.head + ahead;
    bool worked = false;
    while (!wire.dead && wire.head < end) {
      execute(index, wire);
      worked = true;
    }
    return complete(index, wire) || worked;
  }

  void execute(uint32_t index, Wire& wire) {
    ToyEntry& slot = wire.ring[wire.head % options_.depth];
    const ToyEntry entry = slot;
    if (entry.position != wire.head || entry.position_again != wire.head)
      return wrong(
          index, "entry " + std::to_string(wire.head) + " holds position " + std::to_string(entry.position));
    if (options_.messages && wire.messages[wire.done & (kMessages - 1)] != wire.head)
      return wrong(index, "message " + std::to_string(wire.done) + " is not that of entry " +
                              std::to_string(wire.head));
    memset(static_cast<void*>(&slot), kPoison, sizeof slot);
    if (entry.units == 2) {
      uint64_t* second = reinterpret_cast<uint64_t*>(&wire.ring[(wire.head + 1) % options_.depth]);
      for (int i = 0; i < 8; ++i) {
        if (second[i] != wire.head + 1) return wrong(index, "second unit of " + std::to_string(wire.head));
      }
      memset(second, kPoison, sizeof slot);
    }
    uint64_t status = 0;
    if (wire.done == options_.fail_at) {
      status = 0x13;
    } else {
      perform(index, entry);
    }
    if (entry.signaled != 0 || status != 0)
      wire.late.push_back(status << 8 | (wire.head & 0xffffu) << 16 | uint64_t(entry.units) << 32);
    wire.head += entry.units;
    ++wire.done;
    ++executed_;
    if (status != 0) {
      while (!wire.late.empty()) complete(index, wire);
      wire.dead = true;
    }
  }

  void perform(uint32_t index, const ToyEntry& entry) {
    uint64_t* remote = reinterpret_cast<uint64_t*>(entry.remote);
    uint64_t* local = reinterpret_cast<uint64_t*>(entry.local);
    switch (Op(entry.op)) {
      case Op::write:
        if (*remote != 0) wrong(index, "a write is executed twice");
        *remote = entry.value;
        break;
      case Op::read:
        *local = *remote;
        break;
      case Op::fetch_add:
        *local = __atomic_fetch_add(remote, entry.value, __ATOMIC_RELAXED);
        break;
      default:
        wrong(index, "operation " + std::to_string(entry.op));
    }
  }

  bool complete(uint32_t index, Wire& wire) {
    if (wire.late.empty()) return false;
    if (wire.wait != 0) {
      --wire.wait;
      return true;
    }
    if (options_.late != 0) wire.wait = random() % options_.late;
    const bool collapsed = options_.cq_depth == 1;
    const uint64_t slot = collapsed ? 0 : wire.completed % options_.cq_depth;
    if (!collapsed && wire.completed - __atomic_load_n(&wire.consumed, __ATOMIC_ACQUIRE) >= options_.cq_depth)
      wrong(index, "the completion ring overruns");
    const uint64_t phase = collapsed ? 1 : (wire.completed / options_.cq_depth & 1) ^ 1;
    __atomic_store_n(&wire.completions[slot], wire.late.front() | phase, __ATOMIC_RELEASE);
    wire.late.pop_front();
    ++wire.completed;
    return true;
  }

  Options options_;
  std::vector<Queue> queues_;
  std::vector<Wire> wires_;
  std::vector<std::string> violations_;
  uint64_t executed_ = 0, seed_ = 1;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace mori::ibgda
