// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// One rank's symmetric heap: memory that has the same offset on every rank and that every rank of the host
// can load from and store to. Ranks of other hosts have such memory too, but no window here.
//
//   window of rank 0   [ chunk 0 | chunk 1 |   reserved, nothing mapped   ]
//   window of rank 1   [ chunk 0 | chunk 1 |                              ]   address = base of window +
//   offset
//   ...
//
// A window of address space is reserved per rank, once; so bases never move while the heap grows. Growing is
// three steps, with the control plane (python/mori/heap.py) carrying what travels between ranks:
//   grow()    makes my chunk and maps it into my window; its file descriptor goes to the peers
//   attach()  maps a peer's chunk into that peer's window, once for each peer
//   commit()  makes the bytes allocatable, or abandon() takes everything of this step back
// Where the driver offers only IPC handles there is one chunk, at addresses that the driver chooses.
//
// Allocating is bookkeeping and must happen in the same order with the same sizes on all ranks. An Allocation
// is a lease: when the last owner drops it (from any thread) its offset joins released(), and the range is
// reusable after free(), which the control plane calls when every rank has released it.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/core/memory/offset_allocator.hpp"
#include "src/core/memory/peer_memory.hpp"
#include "src/core/runtime/device.hpp"

namespace mori::core {

inline constexpr uint8_t kPoisonByte = 0xA5;  ///< debug: what memory holds that nobody has written
inline constexpr uint8_t kCanaryByte = 0xC5;  ///< debug: the guard behind each allocation
inline constexpr uint64_t kCanaryBytes = 256;

class SymmetricHeap;

/// A range of the heap, held by whoever may still touch it, here or in a peer's window.
class Allocation {
 public:
  Allocation(std::shared_ptr<SymmetricHeap> heap, uint64_t offset, uint64_t bytes)
      : heap_(std::move(heap)), offset_(offset), bytes_(bytes) {}
  ~Allocation();
  Allocation(const Allocation&) = delete;
  Allocation& operator=(const Allocation&) = delete;

  const std::shared_ptr<SymmetricHeap>& heap() const { return heap_; }
  uint64_t offset() const { return offset_; }
  uint64_t bytes() const { return bytes_; }

 private:
  std::shared_ptr<SymmetricHeap> heap_;
  uint64_t offset_;
  uint64_t bytes_;
};

struct HeapOptions {
  uint64_t reserve_bytes = 0;  ///< address space of each rank's window; the heap cannot grow beyond it
  bool map = true;             ///< false: IPC handles, one chunk
  bool debug = false;          ///< poison and canaries
  std::vector<bool> apart;     ///< by rank: on another host, its window is not mapped here; empty: nobody is
};

class SymmetricHeap : public std::enable_shared_from_this<SymmetricHeap> {
 public:
  /// What a peer needs to attach my chunk. The descriptor stays mine and closes at commit() or abandon().
  struct Export {
    uint64_t bytes = 0;
    int fd = -1;
    std::string ipc;
  };
  struct Place {
    uint32_t peer = 0;
    uint64_t offset = 0;
  };

  static std::shared_ptr<SymmetricHeap> create(std::shared_ptr<Device> device, uint32_t rank,
                                               uint32_t world_size, const HeapOptions& options);
  ~SymmetricHeap();
  SymmetricHeap(const SymmetricHeap&) = delete;
  SymmetricHeap& operator=(const SymmetricHeap&) = delete;

  // Growth. `bytes` must be a multiple of granularity() of every rank.
  Export grow(uint64_t bytes);
  void attach(uint32_t peer, int fd, std::string_view ipc, uint64_t bytes);
  void commit();
  void abandon() noexcept;

  /// Null if the heap has no free range: grow first. `name` appears in reports about the range.
  std::shared_ptr<Allocation> allocate(uint64_t bytes, uint64_t alignment, std::string name);
  /// The allocation that holds this offset, if somebody still has it.
  std::shared_ptr<Allocation> find(uint64_t offset) const;
  /// Offsets whose last owner has gone since the previous call, in ascending order.
  std::vector<uint64_t> take_released();
  /// Makes a released range reusable. In debug mode throws Error, after freeing, if its canary was hurt.
  void free(uint64_t offset);

  /// Of a byte of `peer`'s heap, as mapped in this process; 0 if the peer is on another host.
  uint64_t address(uint32_t peer, uint64_t offset) const;
  /// The inverse, for an address in any mapped window.
  std::optional<Place> locate(uint64_t address) const;
  /// uint64_t[world_size] in device memory: the windows' bases.
  uint64_t bases_address() const { return bases_address_; }

  /// Waits for what this process has queued on the device: it may still use memory that was dropped.
  void quiesce();
  void fill(uint64_t offset, uint8_t value, uint64_t bytes);  ///< of my heap; returns when done
  void check_canaries() const;                                ///< throws Error for the first that is hurt
  /// Bytes the allocator needs for an allocation of `bytes` (debug adds the canary).
  uint64_t needed_bytes(uint64_t bytes) const { return bytes + (options_.debug ? kCanaryBytes : 0); }

  OffsetAllocator::Statistics statistics() const;
  uint64_t capacity_bytes() const;
  uint64_t granularity() const { return granularity_; }
  /// Largest alignment that every address of the heap can have.
  uint64_t alignment_limit() const;
  uint64_t reserve_bytes() const { return options_.reserve_bytes; }
  bool growable() const { return options_.map || capacity_bytes() == 0; }
  uint32_t rank() const { return rank_; }
  uint32_t world_size() const { return world_size_; }
  const std::shared_ptr<Device>& device() const { return device_; }

 private:
  friend class Allocation;
  struct Range {
    uint64_t bytes = 0;
    std::string name;
    std::weak_ptr<Allocation> owner;
  };
  struct Growth {  ///< between grow() and commit()
    Shareable mine;
    uint64_t bytes = 0;
    std::vector<bool> attached;
  };

  SymmetricHeap(std::shared_ptr<Device> device, uint32_t rank, uint32_t world_size,
                const HeapOptions& options);
  void released(uint64_t offset) noexcept;
  void check_canary(uint64_t offset, const Range& range) const;
  bool is_apart(uint32_t peer) const { return !options_.apart.empty() && options_.apart[peer]; }
  void require_peer(uint32_t peer) const;
  void detach(uint32_t peer, uint64_t offset, uint64_t bytes) noexcept;

  std::shared_ptr<Device> device_;
  uint32_t rank_;
  uint32_t world_size_;
  HeapOptions options_;
  uint64_t granularity_ = 0;
  uint64_t bases_address_ = 0;
  std::vector<uint64_t> windows_;  ///< base per rank; 0 until something is mapped (IPC)
  std::vector<std::unique_ptr<PeerMemory>> ipc_windows_;  ///< of the peers, when map is false
  std::vector<uint64_t> chunk_bytes_;
  Shareable ipc_chunk_;  ///< my only chunk, when map is false
  std::optional<Growth> growth_;

  mutable std::mutex mutex_;  ///< of all below
  OffsetAllocator allocator_;
  std::map<uint64_t, Range> ranges_;
  std::vector<uint64_t> released_;
};

}  // namespace mori::core
