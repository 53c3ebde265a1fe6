// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Who makes a rank's queues: the software NIC, or one of hardware. RankFabric knows no more of a NIC than
// this.
#pragma once
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "src/core/runtime/device.hpp"
#include "src/transport/ibgda/keys.hpp"
#include "src/transport/ibgda/types.hpp"

namespace mori::ibgda {

/// What a rank tells of itself, so that both ends of a connection are of one kind.
enum class NicKind : uint32_t { software = 1, hardware = 2 };

/// A peer's heap as requests name it, and, for the software NIC, where it is mapped here.
struct PeerWindow {
  uint64_t address = 0, bytes = 0;
  uint32_t rkey = 0;
  uint64_t mapped = 0;
};

class QueueMaker {
 public:
  virtual ~QueueMaker() = default;
  virtual NicKind kind() const = 0;
  /// Whether regions keep the length that they were registered with.
  virtual bool fixed() const = 0;

  /// `of_device`: memory of the device that kernels run on, else the host's.
  virtual RegionKeys add_region(uint64_t begin, uint64_t bytes, bool of_device) = 0;
  /// The region's length from now on, under the same keys.
  virtual void resize_region(uint32_t local_key, uint64_t bytes) = 0;
  virtual void remove_region(uint32_t local_key) = 0;

  virtual void create_queue(Queue* queue, uint32_t depth, uint32_t peer) = 0;
  /// What the other end's maker must know of a queue; as long for all of them.
  virtual std::string end(const Queue* queue) const = 0;
  virtual void connect(Queue* queue, const std::string& end) = 0;
  /// How much of the peer's window requests of the queue may touch; again when it changes.
  virtual void point(const Queue* queue, const PeerWindow& window) = 0;

  virtual void start() = 0;
  virtual void stop() = 0;
  /// Mistakes of whoever wrote entries, where the NIC can tell.
  virtual std::vector<std::string> violations() const { return {}; }
  /// What is known of why requests to the peer failed, in words that name it and the NIC; or nothing.
  virtual std::string trouble(uint32_t) const { return {}; }
};

/// How the software NIC reaches a peer: by load and store into its memory, mapped here; through the peer's
/// own NIC over TCP; or by a NIC of hardware, which it drives by verbs.
enum class MoverKind : uint32_t { automatic = 0, shm = 1, tcp = 2, verbs = 3 };

struct SoftwareOptions {
  Family family = Family::mlx5;
  uint32_t rank = 0;
  std::vector<MoverKind> movers;      ///< by rank; automatic for no queues
  std::string address;                ///< tcp: numeric, where to listen and what peers dial
  std::chrono::milliseconds timeout;  ///< of a peer that gives no sign of life
  std::string device;                 ///< verbs: its name; empty: the first
};
std::unique_ptr<QueueMaker> make_software(std::shared_ptr<core::Device> device,
                                          const SoftwareOptions& options);
/// `name`: of the RDMA device. `family`: none, or what it must be. Throws core::TransportError in words.
std::unique_ptr<QueueMaker> make_hardware(std::shared_ptr<core::Device> device, Family family,
                                          const std::string& name);

}  // namespace mori::ibgda
