// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The mover by load and store: the peer's memory is mapped in this process. Everything is done in submit(),
// which the NIC calls without a virtual step.
#pragma once
#include "src/transport/ibgda/softnic/effects.hpp"
#include "src/transport/ibgda/softnic/fault.hpp"

namespace mori::ibgda {

/// The other end of a queue: memory of a peer under one key, and where it is mapped here.
struct RemoteWindow {
  uint64_t address = 0;  ///< in the peer's address space, as requests name it
  uint64_t bytes = 0;
  uint32_t rkey = 0;
  uint64_t mapped = 0;
};

/// Why an atomic cannot be done at that address by any NIC.
inline Fault atomic_fault(const Request& r) {
  const bool good = !is_atomic(r.op) || ((r.length == 4 || r.length == 8) && r.remote % r.length == 0);
  return good ? Fault::none : Fault::remote_invalid;
}

/// Executes a request. `scatter`: not 0 places a long write's bytes in an order that this seed says.
inline Fault move_by_shm(const RemoteWindow& window, const Request& r, uint64_t scatter = 0) {
  const uint64_t into = r.remote - window.address;
  if (r.rkey != window.rkey || r.length > window.bytes || into > window.bytes - r.length)
    return Fault::remote_access;
  if (const Fault fault = atomic_fault(r); fault != Fault::none) return fault;
  const uint64_t there = window.mapped + into;
  if (r.op == Op::read) {
    move_bytes(r.local, there, r.length);
  } else if (r.op != Op::write) {
    deliver_word(r.local, change_word(there, r), r.length);
  } else if (scatter != 0) {
    scatter_bytes(there, r.local, r.length, scatter);
  } else if ((r.flags & kInline) != 0) {
    place_bytes(there, reinterpret_cast<const unsigned char*>(r.local), r.length);
  } else {
    move_bytes(there, r.local, r.length);
  }
  return Fault::none;
}

}  // namespace mori::ibgda
