// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// GPU-initiated RDMA, the plain data: what a request asks for, a queue pair as device code sees it, and the
// table through which a kernel finds its queues. One layout on the host and on all targets.
// docs/ibgda.md has the protocol.
#pragma once
#include <stdint.h>

namespace mori::ibgda {

/// A NIC family: one folder in providers/, one row in providers/table.hpp.
enum class Family : uint32_t { none = 0, mlx5 = 1, bnxt_re = 2, ionic = 3 };

/// What a work request does. Which family has what: Capabilities in providers/.
enum class Op : uint32_t {
  nop = 0,
  write = 1,
  write_imm = 2,
  read = 3,
  fetch_add = 4,
  compare_swap = 5,
  masked_fetch_add = 6,     ///< mlx5: 4 or 8 bytes; compare_mask is the field boundary
  masked_compare_swap = 7,  ///< mlx5: 4 or 8 bytes
  send = 8,                 ///< encoders only: no protocol here receives
  send_imm = 9,
};

enum RequestFlag : uint32_t {
  kSignaled = 1,  ///< the NIC writes a completion
  kFence = 2,     ///< behind the queue's earlier reads and atomics
  kInline = 4,    ///< the payload is copied into the entry: `local` is an address the writer can read
  kSolicited = 8,
};

/// One request, in host byte order. Fields that the Op does not need are 0.
struct Request {
  Op op = Op::nop;
  uint32_t flags = kSignaled;
  uint32_t length = 0;  ///< bytes; atomics: 4 or 8
  uint32_t immediate = 0;
  uint64_t local = 0;  ///< source of writes, destination of reads and of what atomics fetch
  uint64_t remote = 0;
  uint32_t lkey = 0;
  uint32_t rkey = 0;
  uint64_t value = 0;  ///< added, or swapped in
  uint64_t compare = 0;
  uint64_t value_mask = 0;  ///< masked_compare_swap: bits that change
  uint64_t compare_mask =
      0;  ///< masked_compare_swap: bits that are compared; masked_fetch_add: field boundary
};

/// A queue pair with its completion queue. Constants first, then one cache line for each word that lanes
/// fight for. Positions are 64-bit counts of send-queue units (mlx5: 64-byte basic blocks; bnxt_re: 16-byte
/// slots; ionic: entries) since the queue was made, or since a start near a counter's wrap that a test chose;
/// what the NIC sees is their low bits.
struct alignas(64) Queue {
  // ---- never change ----
  uint64_t sq;           ///< send ring: depth * unit bytes
  uint64_t cq;           ///< completion ring
  uint64_t doorbell;     ///< the register of the send queue, 8 bytes
  uint64_t record;       ///< mlx5: doorbell record, two be32 (receive, send); else 0
  uint64_t cq_doorbell;  ///< mlx5: the completion queue's record; others: its register; 0: none
  uint64_t msn;          ///< bnxt_re: MSN table; else 0
  Family family;
  uint32_t qpn;
  uint32_t cqn;
  uint32_t depth;           ///< units
  uint32_t cq_depth;        ///< entries, a power of two; 1: collapsed, the NIC rewrites entry 0
  uint32_t mtu;             ///< bytes
  uint32_t msn_entries;     ///< bnxt_re: a power of two
  uint32_t peer;            ///< PE at the other end
  uint32_t blueflame;       ///< mlx5: bytes by which successive doorbells alternate; 0: one address
  uint32_t max_inline;      ///< bytes
  uint64_t first_position;  ///< where the counters began
  // ---- state ----
  alignas(64) uint64_t reserved;   ///< end of what lanes have taken
  alignas(64) uint64_t published;  ///< end of what is written, in order; entries before it are whole
  uint64_t messages;               ///< published requests; low bits are bnxt_re's MSN. Owner: who publishes
  uint64_t packets;                ///< of those; low bits are bnxt_re's PSN. Owner: who publishes
  alignas(64) uint64_t rung;       ///< end of what the NIC was told
  uint64_t rings;                  ///< doorbells so far. Owner: ring_lock
  uint32_t ring_lock;              ///< 0 free; holder rings for all that is published
  alignas(64) uint64_t completed;  ///< end of what is done
  uint64_t consumed;               ///< completion entries taken. Owner: poll_lock
  uint64_t completed_messages;     ///< owner: poll_lock
  uint32_t poll_lock;
  alignas(64) uint64_t error;  ///< 0, or kQueueFailed | vendor code << 8 | status; stays: the queue is dead
};
inline constexpr uint64_t kQueueFailed = uint64_t(1) << 63;
/// In Queue::error: a lane gave up waiting for room or for its turn, and left a hole in the positions.
inline constexpr uint64_t kQueueAbandoned = uint64_t(1) << 62;
static_assert(sizeof(Queue) == 448, "layout");

/// Units that an entry may have, so that a warp's can be added up by a few ballots; a ring is no shorter.
inline constexpr uint32_t kMaxUnits = 7;

/// The heap of a PE, as its NIC knows it.
struct RemoteHeap {
  uint64_t address;  ///< of the window, in that PE's address space
  uint64_t bytes;
  uint32_t rkey;
  uint32_t path;  ///< Path
};
enum class Path : uint32_t { none = 0, direct = 1, queue = 2 };  ///< direct: loads and stores, no queue

/// Memory that my NIC may touch: [begin, end), in the order of registration, my heap's window first. An entry
/// that is free has end 0.
struct LocalRegion {
  uint64_t begin;
  uint64_t end;  ///< written last
  uint32_t lkey;
  uint32_t flags;
};

/// What World::fabric points at, in memory of the device.
struct Fabric {
  uint64_t queues;   ///< Queue[world_size * queues_per_peer]: queue j of PE i at i * queues_per_peer + j
  uint64_t heaps;    ///< RemoteHeap[world_size]
  uint64_t regions;  ///< LocalRegion[num_regions]
  uint64_t results;  ///< Result[num_results], in registered memory: where fetched words arrive
  uint64_t result_owners;  ///< uint64_t[num_results], 0 free: a lane takes one for a fetch
  uint64_t result_cursor;  ///< uint64_t: where the next lane begins to look
  uint32_t result_lkey;
  uint32_t num_results;  ///< a power of two
  uint32_t num_regions;  ///< entries to look at; grows only
  uint32_t queues_per_peer;
};
struct Result {
  uint64_t word;
  uint64_t unused;
};

}  // namespace mori::ibgda
