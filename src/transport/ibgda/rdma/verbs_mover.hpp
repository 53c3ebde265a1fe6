// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The mover over verbs: requests go out through a NIC of hardware by the ordinary calls of libibverbs, from
// the software NIC's thread. One reliable queue pair for each queue. docs/host_proxy.md.
//
//   VerbsMover mover({.device = "mlx5_0"});
//   number = nic.create_queue(&queue, {.mover = &mover});   mover.add_queue(number, peer);
//   mover.add_region(local_key, begin, bytes);              the first one is what peers' requests name
//   doors[r][j] = rank r's mover.door(number)               carried by the mesh
//   mover.connect(number, door);  mover.point(number, window);
#pragma once
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "src/transport/ibgda/softnic/mover.hpp"
#include "src/transport/ibgda/softnic/shm_mover.hpp"
#include "src/transport/verbs/port.hpp"

namespace mori::ibgda::rdma {

struct VerbsOptions {
  std::string device;                         ///< its name; empty: the first that there is
  std::string library;                        ///< empty: libibverbs.so.1
  std::chrono::milliseconds timeout{15'000};  ///< about how long the NIC tries to reach a silent peer
};

/// One end of a queue pair, for the other end.
struct QueueDoor {
  verbs::Address address;
  uint32_t number = 0;
  uint32_t psn = 0;
  uint32_t rkey = 0;  ///< of the first region
  uint32_t serves = 0;
};

class VerbsMover final : public Mover {
 public:
  /// Throws TransportError: no library, no such device, no active port.
  explicit VerbsMover(const VerbsOptions& options);
  ~VerbsMover() override;
  VerbsMover(const VerbsMover&) = delete;
  VerbsMover& operator=(const VerbsMover&) = delete;

  // Regions come and go while the NIC runs, behind the NIC's own bookkeeping.
  void add_region(uint32_t lkey, uint64_t begin, uint64_t bytes);
  void remove_region(uint32_t lkey);

  // Before the NIC starts.
  void add_queue(uint32_t queue, uint32_t peer);
  QueueDoor door(uint32_t queue) const;
  void connect(uint32_t queue, const QueueDoor& door);
  /// What requests of the queue may touch, under which key they name it.
  void point(uint32_t queue, const RemoteWindow& window);

  void open(const Regions&) override {}
  Outcome submit(uint32_t queue, const Request& request) override;
  bool poll(const Finished& finished) override;
  void wait(std::chrono::microseconds time) override;
  void close() override {}

  /// Why requests to the peer failed, naming it and the NIC; empty: none did. Any thread.
  std::string trouble(uint32_t peer) const;

 private:
  struct Pair;

  void release();
  [[noreturn]] void fail(const std::string& what, int error) const;

  VerbsOptions options_;
  std::shared_ptr<const verbs::Library> library_;
  std::string who_;
  verbs::Context* context_ = nullptr;
  verbs::Pd* pd_ = nullptr;
  verbs::DeviceAttr limits_{};
  verbs::Port port_;
  std::vector<std::unique_ptr<Pair>> pairs_;  ///< by the NIC's number
  mutable std::mutex mutex_;                  ///< of all below
  std::map<uint32_t, verbs::Mr*> regions_;    ///< by local key
  uint32_t first_rkey_ = 0;
  std::map<uint32_t, std::string> troubles_;  ///< by peer
};

}  // namespace mori::ibgda::rdma
