// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Broadcom Thor2 (bnxt_re), variable-size entries with the MSN table: little-endian words in slots of 16
// bytes. The format, field by field, is docs/nic_bnxt_re.md. Entries of a queue all take three slots, so a
// ring of 3 * 2^k slots holds 2^k of them and none wraps around its end.
#pragma once
#include "src/transport/ibgda/providers/completion.hpp"

namespace mori::ibgda {
inline namespace MORI_TARGET_NAMESPACE {

struct BnxtRe {
  static constexpr Family kFamily = Family::bnxt_re;
  static constexpr uint32_t kUnit = 16;  ///< a slot
  static constexpr uint32_t kSlots = 3;  ///< of an entry: header, address, one data segment or inline bytes
  static constexpr uint32_t kGap = 0;    ///< units that stay free: a full ring is told from an empty one
  static constexpr bool kPublishesEach = true;  ///< publish() for each entry
  static constexpr uint32_t kCompletionBytes = 32;
  static constexpr uint32_t kMaxInline = 16;

  enum Type : uint32_t {
    kSend = 0x00,
    kSendImm = 0x01,
    kWrite = 0x04,
    kWriteImm = 0x05,
    kRead = 0x06,
    kCompareSwap = 0x08,
    kFetchAdd = 0x0b,
  };
  static constexpr uint32_t kSignal = 0x01, kUcFence = 0x04, kSolicitedEvent = 0x08, kInlineData = 0x10;
  static constexpr uint64_t kValid = uint64_t(1) << 58;
  static constexpr uint64_t kEpoch = uint64_t(1) << 24;
  static constexpr uint64_t kCqDoorbell = uint64_t(4) << 60;
  enum CompletionType : uint32_t { kRequester = 0 };

  /// Atomics of 8 bytes only, no masks; a NOP is a write of nothing.
  MORI_DEVICE static constexpr bool has(Op op, uint32_t length) {
    if (op == Op::masked_fetch_add || op == Op::masked_compare_swap) return false;
    return (op != Op::fetch_add && op != Op::compare_swap) || length == 8;
  }
  MORI_DEVICE static constexpr uint32_t type(Op op) {
    switch (op) {
      case Op::write_imm:
        return kWriteImm;
      case Op::read:
        return kRead;
      case Op::fetch_add:
        return kFetchAdd;
      case Op::compare_swap:
        return kCompareSwap;
      case Op::send:
        return kSend;
      case Op::send_imm:
        return kSendImm;
      default:
        return kWrite;
    }
  }
  MORI_DEVICE static constexpr uint32_t units(const Request&) { return kSlots; }

  /// Writes the entry, all bytes of its slots. Callers: one lane.
  MORI_DEVICE static void encode(const Queue& q, uint64_t position, const Request& r) {
    const uint64_t at = position % q.depth;
    const bool atomic = r.op == Op::fetch_add || r.op == Op::compare_swap;
    const bool inlined = (r.flags & kInline) != 0;
    const uint32_t flags = ((r.flags & kSignaled) != 0 ? kSignal : 0) |
                           ((r.flags & kFence) != 0 ? kUcFence : 0) |
                           ((r.flags & kSolicited) != 0 ? kSolicitedEvent : 0) | (inlined ? kInlineData : 0);
    const uint32_t header = type(r.op) | flags << 8 | kSlots << 16;
    store_segment(q.sq, at, q.depth, two(header, atomic ? r.rkey : r.immediate),
                  atomic ? r.remote : r.length);
    if (atomic) {
      store_segment(q.sq, at + 1, q.depth, r.value, r.op == Op::compare_swap ? r.compare : 0);
    } else if (r.op == Op::send || r.op == Op::send_imm) {
      store_segment(q.sq, at + 1, q.depth, 0, 0);
    } else {
      store_segment(q.sq, at + 1, q.depth, r.remote, r.rkey);
    }
    if (inlined) {
      store_segment(q.sq, at + 2, q.depth, inline_word(r.local, r.length, 0),
                    inline_word(r.local, r.length, 8));
    } else {
      store_segment(q.sq, at + 2, q.depth, r.local, two(r.lkey, r.length));
    }
  }

  /// Packets that a request sends or, a read, receives: what its PSN moves by.
  MORI_DEVICE static uint64_t packets(Op op, uint32_t length, uint32_t mtu) {
    if (op == Op::fetch_add || op == Op::compare_swap || length == 0) return 1;
    return (uint64_t(length) + mtu - 1) / mtu;
  }
  /// The entry's line of the MSN table: its first PSN, the next one's, its first slot.
  MORI_DEVICE static void publish(Queue& q, uint64_t position, const Request& r) {
    const uint64_t next = q.packets + packets(r.op, r.length, q.mtu);
    global<uint64_t>(q.msn)[q.messages & (q.msn_entries - 1)] =
        (q.packets & 0xffffffu) | (next & 0xffffffu) << 24 | position % q.depth << 48;
    q.packets = next;
    ++q.messages;
  }

  MORI_DEVICE static void ring(Queue& q, uint64_t end) {
    const uint64_t value =
        end % q.depth | ((end / q.depth & 1) != 0 ? kEpoch : 0) | uint64_t(q.qpn) << 32 | kValid;
    store_release<Scope::system>(global<uint64_t>(q.doorbell), value);
  }

  /// The completion at the head of the ring, if there is one. Callers: the holder of the poll lock.
  MORI_DEVICE static bool take(Queue& q, Completion& out) {
    const uint64_t entry = q.cq + (q.consumed & (q.cq_depth - 1)) * kCompletionBytes;
    const uint64_t tail = load_acquire<Scope::system>(global<const uint64_t>(entry + 24));
    const uint32_t phase = uint32_t(tail) & 1u, wanted = (q.consumed & q.cq_depth) == 0 ? 1u : 0u;
    const bool valid = phase == wanted && (tail >> 1 & 0xfu) == kRequester;
    if (valid) {
      out.status = uint32_t(tail) >> 8 & 0xffu;
      out.failed = out.status != 0;
      // the number of requests done, modulo those that the ring holds; every completion is of one at least
      const uint32_t held = q.depth / kSlots;
      const uint32_t index = *global<const uint32_t>(entry + 8);
      q.completed_messages += ((index - uint32_t(q.completed_messages) - 1) & (held - 1)) + 1;
      out.completed = q.completed_messages * kSlots;
      ++q.consumed;
      if (q.cq_doorbell != 0) {
        const uint64_t value = (q.consumed & (q.cq_depth - 1)) |
                               ((q.consumed & q.cq_depth) != 0 ? kEpoch : 0) | uint64_t(q.cqn) << 32 |
                               kValid | kCqDoorbell;
        store_release<Scope::system>(global<uint64_t>(q.cq_doorbell), value);
      }
    }
    return valid;
  }
};

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori::ibgda
