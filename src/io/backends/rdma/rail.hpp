// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// A rail: queue pairs from one NIC of this engine to one NIC of a peer, with a completion queue of their own.
// The initiator's end (Rail) posts; the target's end (PassiveRails) only lets its NIC answer. A rail is never
// repaired: it is taken down on both sides and another one with another epoch and other queue pairs is made,
// so a packet of an old one finds no queue pair to land in.
#pragma once
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "src/io/backend.hpp"
#include "src/io/backends/rdma/work.hpp"

namespace mori::io::rdma {

/// One queue pair and the ledger of what it was given. Sequence numbers count work requests from 0.
struct Queue {
  struct Entry {
    Work* work = nullptr;
    Range range;
  };

  verbs::Qp* qp = nullptr;
  uint32_t psn = 0;
  uint32_t depth = 0;
  uint64_t posted = 0;
  uint64_t confirmed = 0;   ///< completed with success; [confirmed, posted) is in the ledger
  uint64_t seen = 0;        ///< completed at all: [confirmed, seen) failed or was flushed
  uint64_t bytes = 0;       ///< in flight
  std::vector<Entry> ring;  ///< a power of two

  Entry& at(uint64_t sequence) { return ring[sequence & (ring.size() - 1)]; }
  uint64_t room() const { return depth - (posted - confirmed); }
  bool drained() const { return seen == posted; }
};

struct Rail {
  enum class State : uint8_t { up, failed };

  /// Queue pairs in the INIT state. Throws TransportError.
  Rail(Nic& from, const NicCard& to, uint64_t number, const Config& config);
  ~Rail();
  Rail(const Rail&) = delete;
  Rail& operator=(const Rail&) = delete;

  /// What the peer needs.
  RailEnd end() const;
  /// To the ready-to-send state. Throws TransportError.
  void connect(const RailEnd& peer, const Config& config);
  /// Writes 8 bytes to the peer over each queue pair and waits: only this shows that packets pass both ways.
  /// Throws TransportError.
  void probe(const RailEnd& peer, Deadline deadline);
  /// All queue pairs to the error state: nothing more is sent, what is queued is flushed.
  void break_off() noexcept;
  bool drained() const;
  uint64_t under_way() const;

  Nic& nic;
  const NicCard remote;
  const uint64_t epoch;
  const Address address;
  verbs::Cq* cq = nullptr;
  std::vector<Queue> queues;
  uint32_t max_sge = 1;
  uint32_t inline_bytes = 0;
  State state = State::up;
  bool on_purpose = false;  ///< broken off for a job that was cancelled
  std::string reason;       ///< why it failed

 private:
  void make_queue(Queue& queue, uint32_t depth, const Config& config);
  void release();
};

/// The target's ends, by peer and epoch. Thread-safe.
class PassiveRails {
 public:
  explicit PassiveRails(const Config& config);
  ~PassiveRails();

  RailEnd open(Nic& nic, const Peer& peer, const RailEnd& wished);
  /// Returns when the queue pairs are gone. Unknown ones are gone already.
  void close(const Peer& peer, uint64_t epoch);
  void drop(const Peer& peer);
  size_t count() const;

 private:
  struct End;
  using Key = std::pair<std::string, uint64_t>;
  const Config& config_;
  mutable std::mutex mutex_;
  std::map<Key, std::map<uint64_t, std::unique_ptr<End>>> ends_;
};

}  // namespace mori::io::rdma
