// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// A NIC of hardware for kernels: opens it, registers memory, makes queue pairs whose rings kernels write,
// and connects them. The plain data is that of types.hpp; docs/ibgda_hardware.md.
//
//   HardwareNic nic(make_mapper(device), options);
//   keys = nic.add_region(address, bytes);
//   nic.create_queue(&queue, {.depth = 1024, .peer = 3});
//   peers exchange nic.end(&queue);
//   nic.connect(&queue, theirs);
//
// Failures: core::TransportError, which begins with "ibgda: NAME".
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "src/transport/ibgda/control/direct.hpp"
#include "src/transport/ibgda/control/mapper.hpp"
#include "src/transport/ibgda/keys.hpp"
#include "src/transport/ibgda/types.hpp"
#include "src/transport/verbs/memory.hpp"
#include "src/transport/verbs/port.hpp"

namespace mori::ibgda {

struct NicOptions {
  std::string name;  ///< of the RDMA device, "mlx5_0"
  verbs::PortWish port;
  uint8_t traffic_class = 0;  ///< DSCP << 2 for RoCE
  uint8_t service_level = 0;
  uint8_t timeout = 14;
  uint8_t retry_count = 6;
  bool atomics = true;  ///< refuse a NIC that has none
  // For tests: other libraries.
  std::string verbs_library;
  std::string direct_library;
};

struct QueueWish {
  uint32_t depth = 1024;  ///< units at least
  uint32_t peer = 0;
};

/// What the other end must know. Plain data.
struct QueueEnd {
  verbs::Address address;
  uint32_t number = 0;
  uint32_t psn = 0;
  uint8_t reads = 1;   ///< that this end has in flight
  uint8_t serves = 1;  ///< that this end answers at once
};

class HardwareNic {
 public:
  HardwareNic(std::unique_ptr<Mapper> mapper, const NicOptions& options);
  ~HardwareNic();
  HardwareNic(const HardwareNic&) = delete;
  HardwareNic& operator=(const HardwareNic&) = delete;

  Family family() const { return direct_->family(); }
  const verbs::Port& port() const { return port_; }
  bool remote_atomics() const { return (access_ & verbs::kRemoteAtomic) != 0; }

  /// Memory of the mapper's GPU, or of the host (`on_gpu` false).
  RegionKeys add_region(uint64_t begin, uint64_t bytes, bool on_gpu);
  void remove_region(uint32_t local_key);
  uint64_t region_bytes(uint32_t local_key) const;  ///< 0: there is none

  void create_queue(Queue* queue, const QueueWish& wish);
  QueueEnd end(const Queue* queue) const;
  void connect(Queue* queue, const QueueEnd& theirs);
  /// Ends all queues: what is under way, and what is posted later, completes as flushed.
  void stop();
  verbs::Qp* pair(const Queue* queue) const;  ///< for tests

 private:
  struct Made;
  [[noreturn]] void fail(const std::string& what) const;
  void open();
  void release();
  bool try_queue(Made& made, uint32_t completions, uint32_t works);
  void drop(Made& made);
  Made& made_of(const Queue* queue) const;

  const NicOptions options_;
  const std::string who_;
  std::shared_ptr<const verbs::Library> library_;
  verbs::Context* context_ = nullptr;
  verbs::Pd* pd_ = nullptr;
  verbs::DeviceAttr limits_{};
  verbs::Port port_;
  int access_ = 0;
  std::unique_ptr<DirectVerbs> direct_;
  std::unique_ptr<Mapper> mapper_;
  std::vector<std::unique_ptr<Made>> queues_;
  std::vector<verbs::Mr*> regions_;
};

}  // namespace mori::ibgda
