// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Puts, gets and signals as requests on a queue (docs/ibgda.md, "SHMEM over queues"). Not inlined: a kernel
// has them once, and where all PEs are reached by load and store they are code that never runs.
//
// Callers: one lane of the group; `dest` of a put and `source` of a get are mine and stand for `pe`'s copy.
// What posts returns the position to wait for, 0 where nothing is left to wait for (or something failed; the
// error word says what).
#pragma once
#include "src/shmem/queue_way.hpp"

namespace mori::shmem {
inline namespace MORI_TARGET_NAMESPACE {

constexpr uint64_t kLongestMessage = uint64_t(1) << 30;

/// A source of at most Queue::max_inline bytes is copied into the entry; it may be any memory of the lane. A
/// longer one is in a registered region, or nothing is sent.
MORI_DEVICE_NOINLINE uint64_t queue_put(const Ctx& ctx, const void* dest, const void* source, uint64_t bytes,
                                        uint32_t pe) {
  const QueueWay way = way_to(ctx, reinterpret_cast<uint64_t>(dest), pe);
  ibgda::Request request{.op = ibgda::Op::write,
                         .local = reinterpret_cast<uint64_t>(source),
                         .remote = way.remote,
                         .rkey = way.rkey};
  if (bytes <= way.queue->max_inline) {
    request.flags |= ibgda::kInline;
    request.length = uint32_t(bytes);
    static_cast<void>(ibgda::post(ctx.world, *way.queue, request));
    return 0;
  }
  if (!find_key(fabric_of(ctx), request.local, bytes, request.lkey)) {
    refuse_unregistered(ctx, request.local, bytes);
    return 0;
  }
  uint64_t position = 0;
  for (uint64_t done = 0; done < bytes; done += request.length) {
    request.length = uint32_t(bytes - done < kLongestMessage ? bytes - done : kLongestMessage);
    position = ibgda::post(ctx.world, *way.queue, request);
    if (position == 0) return 0;
    request.local += request.length;
    request.remote += request.length;
  }
  return position;
}

/// A value that is in no registered memory, whatever its size. Nothing is left to wait for.
MORI_DEVICE_NOINLINE void queue_put_value(const Ctx& ctx, const void* dest, const void* value, uint32_t bytes,
                                          uint32_t pe) {
  const uint32_t most = queue_to(ctx, pe)->max_inline;
  for (uint32_t done = 0; done < bytes; done += most) {
    const uint32_t piece = bytes - done < most ? bytes - done : most;
    queue_put(ctx, static_cast<const char*>(dest) + done, static_cast<const char*>(value) + done, piece, pe);
  }
}

/// Waits for what queue_put() or queue_get() gave. Callers: one lane.
MORI_DEVICE_NOINLINE bool queue_wait(const Ctx& ctx, uint32_t pe, uint64_t position) {
  return position == 0 || ibgda::wait_completed(ctx.world, *queue_to(ctx, pe), position);
}

/// A value to memory that the NIC cannot write, by words of its own; it is there on return.
MORI_DEVICE_NOINLINE void queue_get_value(const Ctx& ctx, void* value, const void* source, uint32_t bytes,
                                          uint32_t pe) {
  const QueueWay way = way_to(ctx, reinterpret_cast<uint64_t>(source), pe);
  for (uint32_t done = 0; done < bytes; done += 8) {
    const uint32_t piece = bytes - done < 8 ? bytes - done : 8;
    const bool came = with_result(ctx, [&](uint64_t word, uint32_t lkey) {
      const ibgda::Request request{.op = ibgda::Op::read,
                                   .length = piece,
                                   .local = word,
                                   .remote = way.remote + done,
                                   .lkey = lkey,
                                   .rkey = way.rkey};
      const uint64_t position = ibgda::post(ctx.world, *way.queue, request);
      if (position == 0 || !ibgda::wait_completed(ctx.world, *way.queue, position)) return false;
      const uint64_t bits = load_relaxed<Scope::system>(global<uint64_t>(word));
      for (uint32_t i = 0; i < piece; ++i)
        static_cast<unsigned char*>(value)[done + i] = static_cast<unsigned char>(bits >> (8 * i));
      return true;
    });
    if (!came) return;
  }
}

/// A destination of at most two words may be any memory; they are there on return then, and nothing is left
/// to wait for. A longer one is in a registered region.
MORI_DEVICE_NOINLINE uint64_t queue_get(const Ctx& ctx, void* dest, const void* source, uint64_t bytes,
                                        uint32_t pe) {
  const QueueWay way = way_to(ctx, reinterpret_cast<uint64_t>(source), pe);
  ibgda::Request request{.op = ibgda::Op::read,
                         .local = reinterpret_cast<uint64_t>(dest),
                         .remote = way.remote,
                         .rkey = way.rkey};
  if (!find_key(fabric_of(ctx), request.local, bytes, request.lkey)) {
    if (bytes <= 16) {
      queue_get_value(ctx, dest, source, uint32_t(bytes), pe);
    } else {
      refuse_unregistered(ctx, request.local, bytes);
    }
    return 0;
  }
  uint64_t position = 0;
  for (uint64_t done = 0; done < bytes; done += request.length) {
    request.length = uint32_t(bytes - done < kLongestMessage ? bytes - done : kLongestMessage);
    position = ibgda::post(ctx.world, *way.queue, request);
    if (position == 0) return 0;
    request.local += request.length;
    request.remote += request.length;
  }
  return position;
}

/// Waits until all that was published on the queues is complete: on mine to every PE, or with `all` on those
/// of the other blocks and contexts too. Callers: any lane, which waits for the PEs first, first + step, ...
MORI_DEVICE_NOINLINE void queue_quiet(const Ctx& ctx, uint32_t first, uint32_t step, bool all) {
  const uint32_t each = all ? fabric_of(ctx).queues_per_peer : 1;
  for (uint32_t pe = first; pe < ctx.world.world_size; pe += step) {
    if (!has_queue(ctx.world, pe)) continue;
    for (uint32_t i = 0; i < each; ++i) {
      ibgda::Queue* queue =
          all ? global<ibgda::Queue>(fabric_of(ctx).queues) + uint64_t(pe) * each + i : queue_to(ctx, pe);
      if (!ibgda::quiet(ctx.world, *queue)) return;
    }
  }
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori::shmem
