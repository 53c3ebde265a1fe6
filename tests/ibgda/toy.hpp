// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The smallest NIC family that has every difficulty of the real ones: entries of one and two units, a 16-bit
// doorbell with a record beside it, completions that name a 16-bit counter, rings of one entry that are
// rewritten, a table that is written in turn. Its entries hold their whole position, so that the NIC of
// toy_nic.hpp sees every mistake of the algorithm at once.
#pragma once
#include "src/transport/ibgda/queue.hpp"
#include "tests/ibgda/toy_entry.hpp"

namespace mori::ibgda {
inline namespace MORI_TARGET_NAMESPACE {

/// `kEach`: entries have something that depends on their turn. `kWhole`: a completion stands for all units of
/// its entry; else, wrongly, for the first.
template <bool kEach = true, bool kWhole = true>
struct Toy {
  static constexpr Family kFamily = Family::none;
  static constexpr uint32_t kUnit = 64;

  MORI_DEVICE static Toy of(const Queue&) { return {}; }
  MORI_DEVICE static uint32_t gap() { return 0; }
  MORI_DEVICE static bool publishes_each() { return kEach; }

  MORI_DEVICE static uint32_t units(const Request& r) { return r.op == Op::read ? 2 : 1; }

  MORI_DEVICE static void encode(const Queue& q, uint64_t position, const Request& r) {
    *global<ToyEntry>(q.sq + position % q.depth * kUnit) = {
        position, uint32_t(r.op), units(r), r.flags & kSignaled, r.remote, r.local, r.value, 0, position};
    if (units(r) == 1) return;
    uint64_t* second = global<uint64_t>(q.sq + (position + 1) % q.depth * kUnit);
    for (uint32_t i = 0; i < 8; ++i) second[i] = position + 1;
  }

  MORI_DEVICE static void publish(Queue& q, uint64_t position, const Request&) {
    global<uint64_t>(q.msn)[q.messages & (q.msn_entries - 1)] = position;
    ++q.messages;
  }

  /// Counts in `rings` the doorbells that went back: the NIC sees only those that stay for a while.
  MORI_DEVICE static void ring(Queue& q, uint64_t end) {
    const uint64_t before = load_relaxed<Scope::system>(global<uint64_t>(q.doorbell));
    if (((end - before) & 0xffffu) > q.depth) fetch_add_relaxed<Scope::system>(&q.rings, uint64_t(1));
    store_release<Scope::system>(global<uint32_t>(q.record) + 1, uint32_t(end) & 0xffffu);
    store_release<Scope::system>(global<uint64_t>(q.doorbell), uint64_t(q.qpn) << 32 | (end & 0xffffu));
  }

  /// A completion: phase bit, status from bit 8, counter from bit 16, units from bit 32.
  MORI_DEVICE static bool take(Queue& q, Completion& out) {
    const uint64_t entry =
        load_acquire<Scope::system>(global<uint64_t>(q.cq) + (q.consumed & (q.cq_depth - 1)));
    const bool collapsed = q.cq_depth == 1;
    const uint64_t wanted = collapsed ? 1 : (q.consumed / q.cq_depth & 1) ^ 1;
    const bool valid = (entry & 1) == wanted;
    if (valid) {
      out.status = uint32_t(entry >> 8) & 0xffu;
      out.failed = out.status != 0;
      const uint64_t first = extend(q.completed, entry >> 16 & 0xffffu, 16);
      out.completed = first + (kWhole ? entry >> 32 & 0xffu : 1);
      if (!collapsed) {
        ++q.consumed;
        store_release<Scope::system>(global<uint64_t>(q.cq_doorbell), q.consumed);
      }
    }
    return valid;
  }
};

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori::ibgda
