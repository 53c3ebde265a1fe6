// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// A NIC in software, for queues of all families: reads the bytes that kernels wrote into rings, doorbell
// records and registers, refuses what a real NIC would refuse, moves the bytes and writes completions.
// docs/softnic.md.
//
//   SoftNic nic(memory);                             takes rings from `memory`
//   keys = nic.add_region(address, bytes);           a local and a remote one
//   nic.create_queue(&queue, options);               fills the plain data that kernels use
//   nic.connect(queue, peer);                        whose memory its requests may touch, as mapped here
//   nic.start(); ... nic.stop();                     one thread
//
// Moves by load and store ("shm") where the peer's memory is mapped in this process, else by the mover that
// the queue was made with (mover.hpp).
#pragma once
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "src/transport/ibgda/softnic/mover.hpp"
#include "src/transport/ibgda/softnic/regions.hpp"
#include "src/transport/ibgda/softnic/shm_mover.hpp"
#include "src/transport/ibgda/types.hpp"

namespace mori::ibgda {

struct QueueOptions {
  Family family = Family::mlx5;
  uint32_t depth = 256;  ///< entries at least; the ring is rounded up to what the family wants
  uint32_t mtu = 4096;
  uint32_t peer = 0;
  // Where the counts of entries and of completions begin: tests begin before a wrap.
  uint64_t first_entry = 0;
  uint64_t first_completion = 0;
  /// mlx5: rings, records, depths and number that somebody else made; the register is still this NIC's.
  const Queue* rings = nullptr;
  Mover* mover = nullptr;  ///< whose the queue's requests are; null: shm. Outlives the NIC's thread
};

/// What goes wrong on purpose, reproducibly. Chances are of 1024.
struct Faults {
  uint64_t seed = 1;
  uint32_t delay = 0;  ///< a pause of delay_us before an entry
  uint32_t delay_us = 20;
  uint32_t skip = 0;     ///< a queue is passed over in its turn: completions of queues change their order
  uint32_t scatter = 0;  ///< a message is placed in pieces, in random order
  uint32_t late_doorbell = 0;       ///< a doorbell is not seen for some looks
  uint32_t lost = 0;                ///< a doorbell is not seen until another one comes, or many looks
  uint32_t again = 0;               ///< a doorbell is handled twice
  uint32_t stale = 0;               ///< the doorbell before the last one comes once more
  uint32_t early = 0;               ///< entries behind the doorbell are fetched, and thrown away
  uint32_t retry = 0;               ///< receiver not ready: an entry is put off
  uint64_t fail_at = ~uint64_t(0);  ///< the number of the entry, over all queues, that fails
  Fault fail_with = Fault::none;
};

class SoftNic {
 public:
  /// Gives zero-filled memory that kernels and this process address alike, for as long as the NIC lives.
  using Memory = std::function<uint64_t(uint64_t bytes)>;

  explicit SoftNic(Memory memory);
  ~SoftNic();
  SoftNic(const SoftNic&) = delete;
  SoftNic& operator=(const SoftNic&) = delete;

  RegionKeys add_region(uint64_t address, uint64_t bytes);
  /// A region that grew or shrank at its end. Like removal it waits until no request touches it.
  void resize_region(uint32_t local_key, uint64_t bytes);
  void remove_region(uint32_t local_key);
  /// Before start(). The queue's number for its mover.
  uint32_t create_queue(Queue* queue, const QueueOptions& options);
  /// Whose memory requests may touch by load and store; again when the peer's window grew or shrank.
  void connect(const Queue* queue, const RemoteWindow& peer);

  /// Before start().
  void set_faults(const Faults& faults) {
    faults_ = faults;
    random_ = faults.seed * 2 + 1;
  }
  void start();
  /// Instead of start(), in the caller's thread: one look at every queue. Whether there was something to do.
  bool step();
  /// Executes what is announced, and no more; start() goes on, except for queues with a mover.
  void stop();

  /// Mistakes of whoever wrote entries, as sentences, the first hundred.
  std::vector<std::string> violations() const;
  uint64_t executed() const { return executed_.load(std::memory_order_relaxed); }
  /// How often each fault with a chance came true. Behind stop().
  const Faults& happened() const { return happened_; }

 private:
  struct Flying;
  struct Served;
  struct Held;

  void run();
  bool serve(Served& served);
  Outcome execute(Served& served, const Request& request);
  bool poll(Mover& mover);
  void finish(Served& served, Fault fault);
  void end_with(Served& served, Fault fault);
  bool pending() const;
  void rest(std::chrono::microseconds time);
  void complete(Served& served, uint64_t first, Fault fault);
  void flush(Served& served, uint64_t begin, uint64_t end);
  bool put_off(Served& served);
  bool chance(uint32_t Faults::* which);
  std::string wrong_line(Served& served, const Request& request) const;
  void violated(const Served& served, const std::string& what);

  Memory memory_;
  std::vector<std::unique_ptr<Served>> queues_;
  std::vector<Mover*> movers_;
  std::mutex work_;                  ///< held while entries are executed: regions and windows stay
  std::atomic<uint32_t> asking_{0};  ///< who waits for work_: the NIC lets them
  Regions regions_;
  uint32_t next_number_;  ///< of queues; begins anywhere
  mutable std::mutex said_;
  std::vector<std::string> violations_;
  std::atomic<uint64_t> executed_{0};
  std::atomic<bool> leaving_{false};
  std::thread thread_;
  Faults faults_, happened_;
  bool failed_on_purpose_ = false;
  uint64_t random_ = 3;
};

}  // namespace mori::ibgda
