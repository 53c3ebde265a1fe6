// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Host addresses that a vendor's library gave (rings, records, a register page), as kernels address them.
// This class is for CPU ranks: they are what they are. make_mapper() gives the one of a device.
#pragma once
#include <cstdint>
#include <memory>

namespace mori::core {
class Device;
}

namespace mori::ibgda {

class Mapper {
 public:
  Mapper() = default;
  virtual ~Mapper() = default;
  Mapper(const Mapper&) = delete;
  Mapper& operator=(const Mapper&) = delete;

  /// The GPU whose memory is registered; -1: none.
  virtual int gpu() const { return -1; }
  /// Until the mapper goes. Both throw core::TransportError in words.
  virtual uint64_t memory(uint64_t address, uint64_t /*bytes*/) { return address; }
  /// A doorbell register: memory of the NIC, not of the host.
  virtual uint64_t registers(uint64_t address) { return address; }
};

std::unique_ptr<Mapper> make_mapper(std::shared_ptr<core::Device> device);

}  // namespace mori::ibgda
