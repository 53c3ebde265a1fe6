// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// ConnectX (mlx5): send-queue entries, doorbells and completions, as a queue needs them. The format, field by
// field, is docs/nic_mlx5.md; names and numbers are those of infiniband/mlx5dv.h. Words are big-endian.
#pragma once
#include "src/transport/ibgda/providers/completion.hpp"

namespace mori::ibgda {
inline namespace MORI_TARGET_NAMESPACE {

struct Mlx5 {
  static constexpr Family kFamily = Family::mlx5;
  static constexpr uint32_t kUnit = 64;  ///< a basic block of four 16-byte segments
  static constexpr uint32_t kGap = 0;    ///< units that stay free: a full ring is told from an empty one
  static constexpr bool kPublishesEach = false;  ///< nothing of an entry depends on its turn
  static constexpr uint32_t kCompletionBytes = 64;
  static constexpr uint32_t kMaxInline = 28;  ///< beside control, address and inline header in one block

  enum Opcode : uint32_t {
    kNop = 0x00,
    kWrite = 0x08,
    kWriteImm = 0x09,
    kSend = 0x0a,
    kSendImm = 0x0b,
    kRead = 0x10,
    kCompareSwap = 0x11,
    kFetchAdd = 0x12,
    kMaskedCompareSwap = 0x14,
    kMaskedFetchAdd = 0x15,
  };
  enum CompletionOpcode : uint32_t {
    kRequester = 0,
    kRequesterError = 13,
    kResponderError = 14,
    kInvalid = 15
  };
  static constexpr uint32_t kSolicitedBit = 0x02, kCompleteBit = 0x08, kFenceBit = 0x80;
  static constexpr uint32_t kInlineBit = 0x80000000u;
  static constexpr uint32_t kModeWord = 0x08, kModeLong = 0x09;  ///< masked atomics of 4 and of 8 bytes

  MORI_DEVICE static constexpr bool has(Op, uint32_t) { return true; }
  MORI_DEVICE static constexpr uint32_t opcode(Op op) {
    switch (op) {
      case Op::write:
        return kWrite;
      case Op::write_imm:
        return kWriteImm;
      case Op::read:
        return kRead;
      case Op::fetch_add:
        return kFetchAdd;
      case Op::compare_swap:
        return kCompareSwap;
      case Op::masked_fetch_add:
        return kMaskedFetchAdd;
      case Op::masked_compare_swap:
        return kMaskedCompareSwap;
      case Op::send:
        return kSend;
      case Op::send_imm:
        return kSendImm;
      case Op::nop:
        break;
    }
    return kNop;
  }
  /// 16-byte segments of an entry, the control segment included. A payload of 0 bytes has none.
  MORI_DEVICE static constexpr uint32_t segments(const Request& r) {
    switch (r.op) {
      case Op::nop:
        return 1;
      case Op::fetch_add:
      case Op::compare_swap:
      case Op::masked_fetch_add:
        return 4;
      case Op::masked_compare_swap:
        return r.length == 4 ? 4 : 5;
      default:
        break;
    }
    const uint32_t before = r.op == Op::send || r.op == Op::send_imm ? 1 : 2;
    if (r.length == 0) return before;
    return before + ((r.flags & kInline) != 0 ? (4 + r.length + 15) / 16 : 1);
  }
  /// Blocks of an entry. One of two blocks is followed by a signalled NOP: a completion names the first block
  /// of its entry, and the doorbell shows the last entry's control segment, so that what ends a post is one
  /// block.
  MORI_DEVICE static constexpr uint32_t units(const Request& r) { return segments(r) <= 4 ? 1 : 3; }

  /// Writes the entry, all bytes of its blocks. Callers: one lane.
  MORI_DEVICE static void encode(const Queue& q, uint64_t position, const Request& r) {
    if (units(r) == 1) {
      encode_alone(q, position, r);
      return;
    }
    Request silent = r, nop;
    silent.flags &= ~uint32_t(kSignaled);
    nop.flags = r.flags & kSignaled;
    encode_alone(q, position, silent);
    encode_alone(q, position + 2, nop);
  }
  /// The same without a NOP behind.
  MORI_DEVICE static void encode_alone(const Queue& q, uint64_t position, const Request& r) {
    const uint32_t of_ring = q.depth * 4, used = segments(r), all = (used + 3) / 4 * 4;
    const uint64_t first = position % q.depth * 4;
    uint32_t next = 0;
    const auto put = [&](uint64_t low, uint64_t high) {
      store_segment(q.sq, first + next++, of_ring, low, high);
    };
    const bool masked = r.op == Op::masked_fetch_add || r.op == Op::masked_compare_swap;
    const uint32_t mode = !masked ? 0 : r.length == 4 ? kModeWord : kModeLong;
    const uint32_t bits = ((r.flags & kSignaled) != 0 ? kCompleteBit : 0) |
                          ((r.flags & kSolicited) != 0 ? kSolicitedBit : 0) |
                          ((r.flags & kFence) != 0 ? kFenceBit : 0);
    put(two(be32(mode << 24 | (uint32_t(position) & 0xffffu) << 8 | opcode(r.op)), be32(q.qpn << 8 | used)),
        two(bits << 24, be32(r.immediate)));
    if (r.op != Op::nop && r.op != Op::send && r.op != Op::send_imm)
      put(be64(r.remote), two(be32(r.rkey), 0));
    switch (r.op) {
      case Op::fetch_add:
        put(be64(r.value), 0);
        break;
      case Op::compare_swap:
        put(be64(r.value), be64(r.compare));
        break;
      case Op::masked_fetch_add:
        if (r.length == 4) {
          put(two(be32(uint32_t(r.value)), be32(uint32_t(r.compare_mask))), 0);
        } else {
          put(be64(r.value), be64(r.compare_mask));
        }
        break;
      case Op::masked_compare_swap:
        if (r.length == 4) {
          put(two(be32(uint32_t(r.value)), be32(uint32_t(r.compare))),
              two(be32(uint32_t(r.value_mask)), be32(uint32_t(r.compare_mask))));
        } else {
          put(be64(r.value), be64(r.compare));
          put(be64(r.value_mask), be64(r.compare_mask));
        }
        break;
      default:
        break;
    }
    if (r.op != Op::nop && r.length != 0) {
      if ((r.flags & kInline) != 0) {
        put(two(be32(r.length | kInlineBit), uint32_t(inline_word(r.local, r.length, 0))),
            inline_word(r.local, r.length, 4));
        for (uint32_t at = 12; at < r.length; at += 16)
          put(inline_word(r.local, r.length, at), inline_word(r.local, r.length, at + 8));
      } else {
        put(two(be32(r.length), be32(r.lkey)), be64(r.local));
      }
    }
    while (next < all) put(0, 0);
  }

  /// Record, then register: the first 8 bytes of the last entry. Callers: the holder of the ring lock, which
  /// has acquired `published`.
  MORI_DEVICE static void ring(Queue& q, uint64_t end) {
    // read before the record is stored: from then on the NIC may be done with the entry
    const uint64_t control = *global<const uint64_t>(q.sq + (end - 1) % q.depth * kUnit);
    uint32_t* record = global<uint32_t>(q.record) + 1;
    store_release<Scope::system>(record, be32(uint32_t(end) & 0xffffu));
    uint64_t* registers =
        global<uint64_t>(q.doorbell + (q.blueflame != 0 && (q.rings & 1) != 0 ? q.blueflame : 0));
    ++q.rings;
    store_release<Scope::system>(registers, control);
  }

  /// The completion at the head of the ring, if there is one. Callers: the holder of the poll lock.
  MORI_DEVICE static bool take(Queue& q, Completion& out) {
    const uint64_t entry = q.cq + (q.consumed & (q.cq_depth - 1)) * kCompletionBytes;
    const uint32_t tail = load_acquire<Scope::system>(global<const uint32_t>(entry + 60));
    const uint32_t code = tail >> 28, owner = tail >> 24 & 1u;
    const uint32_t counter = (tail & 0xffu) << 8 | (tail >> 8 & 0xffu);
    const uint64_t first = extend(q.completed == 0 ? 0 : q.completed - 1, counter, 16);
    out.failed = code == kRequesterError || code == kResponderError;
    out.completed = first + 1;
    bool valid = code != kInvalid && (q.cq_depth == 1 || (owner != 0) == ((q.consumed & q.cq_depth) != 0));
    // A counter of the past (a collapsed ring keeps the last one) reads as one of the far future.
    if (!out.failed && (first + 1 <= q.completed || first >= load_relaxed<Scope::system>(&q.published)))
      valid = false;
    if (valid && out.failed) {
      const uint32_t word = *global<const uint32_t>(entry + 52);  // bytes 0x36, 0x37: vendor code, syndrome
      out.vendor = word >> 16 & 0xffu;
      out.status = word >> 24;
    }
    if (valid && q.cq_depth > 1) {
      ++q.consumed;
      if (q.cq_doorbell != 0)
        store_release<Scope::system>(global<uint32_t>(q.cq_doorbell), be32(uint32_t(q.consumed) & 0xffffffu));
    }
    return valid;
  }
};

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori::ibgda
