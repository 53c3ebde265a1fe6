// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// One rank's queues to its peers, on the host: makes them on a NIC (queue_maker.hpp), exchanges with the
// peers what each must know of the other, and writes the tables that kernels find through World::fabric
// (docs/ibgda.md, "SHMEM over queues"). Control plane: python/mori/context.py.
//
//   RankFabric fabric(heap, options, paths);           every rank
//   offers[r] = rank r's fabric.offer()                bytes, carried by the mesh
//   fabric.connect(offers);
//   world.bases = fabric.bases(); world.fabric = fabric.address();
#pragma once
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "src/core/memory/symmetric_heap.hpp"
#include "src/transport/ibgda/queue_maker.hpp"
#include "src/transport/ibgda/types.hpp"

namespace mori::ibgda {

struct FabricOptions {
  Family family = Family::mlx5;  ///< none: of the NIC that `nic` names
  uint32_t queues_per_peer = 1;
  uint32_t depth = 1024;  ///< of each send queue, in the family's units
  std::string nic;        ///< an RDMA device; empty: a software NIC, a thread of this process
  MoverKind mover = MoverKind::automatic;  ///< of the software NIC; automatic: by where the peer's memory is
  std::string address = "127.0.0.1";       ///< tcp: numeric, where the NIC listens and what peers dial
  std::string device;  ///< verbs: the RDMA device that the software NIC drives; empty: the first
  std::chrono::milliseconds timeout{15'000};  ///< of a peer that gives no sign of life
};

class RankFabric {
 public:
  static constexpr uint32_t kMaxRegions = 256;
  static constexpr uint32_t kResults = 1024;

  /// `paths` has an entry for each rank; the way to oneself is `direct`.
  RankFabric(std::shared_ptr<core::SymmetricHeap> heap, const FabricOptions& options,
             std::vector<Path> paths);
  ~RankFabric();
  RankFabric(const RankFabric&) = delete;
  RankFabric& operator=(const RankFabric&) = delete;

  std::string offer() const;
  void connect(const std::vector<std::string>& offers);
  /// The heap has grown on all ranks: the NIC may touch as much of each window as is mapped, and no more.
  void follow_heap();
  /// Whether the heap must stay as long as it was: a NIC of hardware has it registered.
  bool fixed() const { return nic_->fixed(); }
  /// Stops the NIC behind what is posted; what comes afterwards is never done. Idempotent.
  void stop();

  uint64_t address() const;  ///< of Fabric, for World::fabric
  uint64_t bases() const;    ///< of the windows reached by load and store, 0 for others: World::bases

  /// Lets the NIC read and write [begin, begin + bytes), which must stay until remove_region(). Throws
  /// CapacityError when the table is full.
  void add_region(uint64_t begin, uint64_t bytes);
  void remove_region(uint64_t begin);
  bool has_region(uint64_t begin, uint64_t bytes) const;

  const FabricOptions& options() const { return options_; }
  const std::vector<Path>& paths() const { return paths_; }
  /// What the NIC found wrong with entries: mistakes of whoever wrote them. For tests.
  std::vector<std::string> violations() const;
  /// Why requests to the rank failed, as far as the NIC can say it in words.
  std::string trouble(uint32_t pe) const { return nic_->trouble(pe); }

 private:
  struct Layout;
  template <class T>
  T* host(uint64_t offset) const {
    return reinterpret_cast<T*>(static_cast<char*>(tables_.host) + offset);
  }
  Queue* queue(uint32_t pe, uint32_t j) const;
  bool has_queues(uint32_t pe) const { return paths_[pe] == Path::queue; }
  void point_queues(uint32_t pe);
  std::unique_ptr<QueueMaker> make_nic() const;
  Fabric& fabric() const { return *host<Fabric>(0); }
  uint32_t slots() const { return uint32_t(paths_.size()); }

  std::shared_ptr<core::SymmetricHeap> heap_;
  FabricOptions options_;
  std::vector<Path> paths_;
  std::unique_ptr<Layout> layout_;
  core::HostMemory tables_;
  std::unique_ptr<QueueMaker> nic_;
  uint32_t heap_rkey_ = 0;
  mutable std::mutex regions_mutex_;
};

}  // namespace mori::ibgda
