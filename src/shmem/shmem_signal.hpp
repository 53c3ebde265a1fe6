// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Signals: words of uint64_t that say that data have come. put_signal orders its own payload before its
// signal, and nothing else: put a fence() between it and earlier puts that the signal shall speak for.
#pragma once
#include "src/shmem/queue_atomic.hpp"
#include "src/shmem/shmem_rma.hpp"

namespace mori::shmem {
inline namespace MORI_TARGET_NAMESPACE {

/// Sets `pe`'s copy of `sig_addr`, or adds to it. Callers: one lane.
/// Orders: nothing; with order release (inside put_signal) what this lane and lanes it met have written.
template <Order O = Order::relaxed>
MORI_DEVICE void signal_op(const Ctx& ctx, uint64_t* sig_addr, uint64_t signal, SignalOp op, uint32_t pe) {
  reach(
      ctx, sig_addr, pe,
      [&](uint64_t* theirs) {
        if (op == SignalOp::set) {
          mori::atomic_store<O, Scope::system>(theirs, signal);
        } else {
          mori::atomic_fetch_add<O, Scope::system>(theirs, signal);
        }
      },
      [&] { queue_signal(ctx, sig_addr, signal, op, pe); });  // behind all that the block asked of `pe`
}

/// Whether 8 bytes at `dest` and the signal fill one aligned pair of words: one store brings both, in half
/// the time of a store, a release and another store.
MORI_DEVICE bool fill_a_pair(const void* dest, const uint64_t* sig_addr, size_t bytes) {
  const uint64_t data = reinterpret_cast<uint64_t>(dest), signal = reinterpret_cast<uint64_t>(sig_addr);
  return kHasPairStore && bytes == 8 && (data ^ signal) == 8 && (data & 7u) == 0;
}

/// putmem_nbi(), and then the signal. With 0 bytes only that, which publishes what the group wrote before.
/// Callers: the group; sync() before if other lanes wrote the source.
/// Orders:  the payload before the signal, system-wide.
template <class Group>
MORI_DEVICE void putmem_signal_nbi(const Group& group, const Ctx& ctx, void* dest, const void* source,
                                   size_t bytes, uint64_t* sig_addr, uint64_t signal, SignalOp op,
                                   uint32_t pe) {
  if (op == SignalOp::set && fill_a_pair(dest, sig_addr, bytes)) {
    const bool data_first = dest < static_cast<void*>(sig_addr);
    if (group.lane() != 0) return;
    uint64_t payload;
    __builtin_memcpy(&payload, source, 8);
    reach(
        ctx, data_first ? static_cast<uint64_t*>(dest) : sig_addr, pe,
        [&](uint64_t* theirs) {
          store_pair(theirs, data_first ? payload : signal, data_first ? signal : payload);
        },
        [&] {
          queue_put_value(ctx, dest, source, 8, pe);
          queue_signal(ctx, sig_addr, signal, op, pe);
        });
    return;
  }
  putmem_nbi(group, ctx, dest, source, bytes, pe);
  group.sync();
  if (group.lane() == 0) signal_op<Order::release>(ctx, sig_addr, signal, op, pe);
}
/// The same, and any lane of the group may write to the source when it returns.
template <class Group>
MORI_DEVICE void putmem_signal(const Group& group, const Ctx& ctx, void* dest, const void* source,
                               size_t bytes, uint64_t* sig_addr, uint64_t signal, SignalOp op, uint32_t pe) {
  putmem_signal_nbi(group, ctx, dest, source, bytes, sig_addr, signal, op, pe);
  if (op == SignalOp::set && fill_a_pair(dest, sig_addr, bytes)) group.sync();  // else it is inside
  if (has_queues(ctx.world)) {
    if (group.lane() == 0) queue_quiet(ctx, pe, ctx.world.world_size, false);
    group.sync();
  }
}
template <class Group, class T>
MORI_DEVICE void put_signal_nbi(const Group& group, const Ctx& ctx, T* dest, const T* source, size_t nelems,
                                uint64_t* sig_addr, uint64_t signal, SignalOp op, uint32_t pe) {
  putmem_signal_nbi(group, ctx, dest, source, nelems * sizeof(T), sig_addr, signal, op, pe);
}
template <class Group, class T>
MORI_DEVICE void put_signal(const Group& group, const Ctx& ctx, T* dest, const T* source, size_t nelems,
                            uint64_t* sig_addr, uint64_t signal, SignalOp op, uint32_t pe) {
  putmem_signal(group, ctx, dest, source, nelems * sizeof(T), sig_addr, signal, op, pe);
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori::shmem
