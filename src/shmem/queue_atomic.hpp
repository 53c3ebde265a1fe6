// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Atomics as requests on a queue. What the NIC has is one request; the rest is a read and compare-and-swaps
// of the aligned 8-byte word until one takes: its other half, if the object has 4 bytes, goes back as it was.
#pragma once
#include "src/shmem/queue_rma.hpp"

namespace mori::shmem {
inline namespace MORI_TARGET_NAMESPACE {

enum class Change : uint32_t { nothing, set, compare_swap, add, add_float, bit_and, bit_or, bit_xor };

/// One atomic operation on 4 or 8 bytes.
struct QueueAtomic {
  Change change;
  uint32_t bytes;
  uint64_t value;
  uint64_t compare;
};

/// What the operation makes of `old`.
MORI_DEVICE uint64_t changed(const QueueAtomic& a, uint64_t old) {
  switch (a.change) {
    case Change::nothing:
      return old;
    case Change::set:
    case Change::compare_swap:
      return a.value;
    case Change::add:
      return old + a.value;
    case Change::add_float:
      if (a.bytes == 8)
        return __builtin_bit_cast(uint64_t,
                                  __builtin_bit_cast(double, old) + __builtin_bit_cast(double, a.value));
      return __builtin_bit_cast(
          uint32_t, __builtin_bit_cast(float, uint32_t(old)) + __builtin_bit_cast(float, uint32_t(a.value)));
    case Change::bit_and:
      return old & a.value;
    case Change::bit_or:
      return old | a.value;
    case Change::bit_xor:
      return old ^ a.value;
  }
  return old;
}

/// Makes the request that the queue's NIC carries out by itself; false if it has none.
MORI_DEVICE bool native(const ibgda::Queue& queue, const QueueAtomic& a, ibgda::Request& request) {
  const uint64_t ones = a.bytes == 8 ? ~uint64_t(0) : uint32_t(~0u);
  request.length = a.bytes;
  request.value = a.value;
  request.compare = 0;
  request.value_mask = request.compare_mask = 0;
  switch (a.change) {
    case Change::nothing:
      request.op = ibgda::Op::read;
      return true;
    case Change::add:
      request.op = a.bytes == 8 ? ibgda::Op::fetch_add : ibgda::Op::masked_fetch_add;
      break;
    case Change::compare_swap:
      request.op = a.bytes == 8 ? ibgda::Op::compare_swap : ibgda::Op::masked_compare_swap;
      request.compare = a.compare;
      if (a.bytes != 8) request.value_mask = request.compare_mask = ones;
      break;
    case Change::bit_xor:  // addition without carries
      request.op = ibgda::Op::masked_fetch_add;
      request.compare_mask = ones;
      break;
    case Change::set:  // a swap that compares no bit
      request.op = ibgda::Op::masked_compare_swap;
      request.value_mask = ones;
      break;
    case Change::bit_and:
      request.op = ibgda::Op::masked_compare_swap;
      request.value = 0;
      request.value_mask = ~a.value & ones;
      break;
    case Change::bit_or:
      request.op = ibgda::Op::masked_compare_swap;
      request.value_mask = a.value & ones;
      break;
    default:
      return false;
  }
  return ibgda::has(queue.family, request.op, a.bytes);
}

/// Posts, waits, and gives what has come to `local`.
MORI_DEVICE bool fetch_by(const Ctx& ctx, ibgda::Queue& queue, const ibgda::Request& request,
                          uint64_t& seen) {
  const uint64_t position = ibgda::post(ctx.world, queue, request);
  if (position == 0 || !ibgda::wait_completed(ctx.world, queue, position)) return false;
  if (request.length == 8) {
    seen = load_relaxed<Scope::system>(global<uint64_t>(request.local));
  } else {  // what an atomic of 4 bytes fetches comes as it travels
    const uint32_t word = load_relaxed<Scope::system>(global<uint32_t>(request.local));
    seen = request.op == ibgda::Op::read ? word : ibgda::be32(word);
  }
  return true;
}

/// The operation on the half, or the whole, of the aligned word at `word`.
MORI_DEVICE bool by_compare_swap(const Ctx& ctx, ibgda::Queue& queue, const QueueAtomic& a, ibgda::Request r,
                                 uint64_t& old) {
  const uint32_t shift = a.bytes == 8 ? 0 : uint32_t(r.remote & 4) * 8;
  const uint64_t ones = (a.bytes == 8 ? ~uint64_t(0) : uint32_t(~0u)) << shift;
  r.remote &= ~uint64_t(7);
  r.length = 8;
  r.op = ibgda::Op::read;
  uint64_t word = 0;
  if (!fetch_by(ctx, queue, r, word)) return false;
  r.op = ibgda::Op::compare_swap;
  for (;;) {
    old = (word & ones) >> shift;
    if (a.change == Change::compare_swap && old != a.compare) return true;
    r.compare = word;
    r.value = (word & ~ones) | ((changed(a, old) << shift) & ones);
    uint64_t seen = 0;
    if (!fetch_by(ctx, queue, r, seen)) return false;
    if (seen == word) return true;
    word = seen;
  }
}

/// What was there before; 0 after a failure. With `fetches` false the NIC's own operations are not waited
/// for.
MORI_DEVICE_NOINLINE uint64_t queue_atomic(const Ctx& ctx, const QueueAtomic& a, const void* dest,
                                           uint32_t pe, bool fetches) {
  const QueueWay way = way_to(ctx, reinterpret_cast<uint64_t>(dest), pe);
  ibgda::Request request{.remote = way.remote, .rkey = way.rkey};
  const bool one = native(*way.queue, a, request);
  if (one && !fetches) {
    const ibgda::Fabric& fabric = fabric_of(ctx);
    request.local = fabric.results;
    request.lkey = fabric.result_lkey;
    static_cast<void>(ibgda::post(ctx.world, *way.queue, request));
    return 0;
  }
  uint64_t old = 0;
  const bool came = with_result(ctx, [&](uint64_t word, uint32_t lkey) {
    request.local = word;
    request.lkey = lkey;
    return one ? fetch_by(ctx, *way.queue, request, old) : by_compare_swap(ctx, *way.queue, a, request, old);
  });
  return came ? old : 0;
}

/// Callers: one lane. Orders: behind all that this block and context asked of `pe`, as RDMA executes
/// requests.
MORI_DEVICE_NOINLINE void queue_signal(const Ctx& ctx, const uint64_t* sig_addr, uint64_t signal, SignalOp op,
                                       uint32_t pe) {
  if (op == SignalOp::set) {
    queue_put_value(ctx, sig_addr, &signal, 8, pe);
  } else {
    queue_atomic(ctx, {.change = Change::add, .bytes = 8, .value = signal, .compare = 0}, sig_addr, pe,
                 false);
  }
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori::shmem
