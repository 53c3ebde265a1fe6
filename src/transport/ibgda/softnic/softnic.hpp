// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// A NIC in software, for queues of all families: reads the bytes that kernels wrote into rings, doorbell
// records and registers, refuses what a real NIC would refuse, moves the bytes and writes completions.
// docs/softnic.md.
//
//   SoftNic nic(memory);                             takes rings from `memory`
//   key = nic.add_region(address, bytes);            local and remote key in one
//   nic.create_queue(&queue, options);               fills the plain data that kernels use
//   nic.connect(queue, peer);                        whose memory its requests may touch, as mapped here
//   nic.start(); ... nic.stop();                     one thread
//
// Moves by load and store ("shm"): the peer's memory is mapped in this process.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "src/transport/ibgda/types.hpp"

namespace mori::ibgda {

/// The other end of a queue: memory of a peer under one key, and where it is mapped here.
struct RemoteWindow {
  uint64_t address = 0;  ///< in the peer's address space, as requests name it
  uint64_t bytes = 0;
  uint32_t rkey = 0;
  uint64_t mapped = 0;
};

struct QueueOptions {
  Family family = Family::mlx5;
  uint32_t depth = 256;  ///< entries at least; the ring is rounded up to what the family wants
  uint32_t mtu = 4096;
  uint32_t peer = 0;
};

class SoftNic {
 public:
  /// Gives zero-filled memory that kernels and this process address alike, for as long as the NIC lives.
  using Memory = std::function<uint64_t(uint64_t bytes)>;

  explicit SoftNic(Memory memory);
  ~SoftNic();
  SoftNic(const SoftNic&) = delete;
  SoftNic& operator=(const SoftNic&) = delete;

  uint32_t add_region(uint64_t address, uint64_t bytes);
  void remove_region(uint32_t key);
  /// Before start().
  void create_queue(Queue* queue, const QueueOptions& options);
  void connect(const Queue* queue, const RemoteWindow& peer);

  void start();
  void stop();  ///< returns when the thread has left; what is posted afterwards is not executed

  /// Mistakes of whoever wrote entries, as sentences, the first hundred.
  std::vector<std::string> violations() const;
  uint64_t executed() const { return executed_.load(std::memory_order_relaxed); }

 private:
  struct Region {
    uint64_t address, bytes;
    uint32_t key;
  };
  struct Served;

  void run();
  bool serve(Served& served);
  uint64_t announced(const Served& served) const;
  void execute(Served& served, const Request& request);
  void complete(Served& served, uint64_t end, uint32_t status);
  void violated(const Served& served, const std::string& what);
  bool local_ok(uint32_t key, uint64_t address, uint64_t bytes) const;

  Memory memory_;
  std::vector<std::unique_ptr<Served>> queues_;
  mutable std::mutex mutex_;  ///< of regions and violations
  std::vector<Region> regions_;
  uint32_t next_key_ = 0x100;
  std::vector<std::string> violations_;
  std::atomic<uint64_t> executed_{0};
  std::atomic<bool> leaving_{false};
  std::thread thread_;
};

}  // namespace mori::ibgda
