// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// AMD Pensando (ionic), version 2 entries of 64 bytes: big-endian, but for the index and the doorbells. The
// format, field by field, is docs/nic_ionic.md.
#pragma once
#include "src/transport/ibgda/providers/completion.hpp"

namespace mori::ibgda {
inline namespace MORI_TARGET_NAMESPACE {

struct Ionic {
  static constexpr Family kFamily = Family::ionic;
  static constexpr uint32_t kUnit = 64;          ///< an entry
  static constexpr uint32_t kGap = 1;            ///< units that stay free: a full ring would look empty
  static constexpr bool kPublishesEach = false;  ///< nothing of an entry depends on its turn
  static constexpr uint32_t kCompletionBytes = 32;
  static constexpr uint32_t kMaxInline = 32;

  enum Code : uint32_t {
    kRead = 0x02,
    kCompareSwap = 0x04,
    kFetchAdd = 0x05,
    kSend = 0x20,
    kWrite = 0x21,
    kSendImm = 0x60,
    kWriteImm = 0x61,
  };
  static constexpr uint32_t kFenceBit = 0x01, kSolicitedBit = 0x02, kInlineBit = 0x04, kSignalBit = 0x08,
                            kColorBit = 0x10;
  enum CompletionType : uint32_t { kSendMsn = 2 };

  MORI_DEVICE static constexpr bool has(Op op, uint32_t length) {
    if (op == Op::masked_fetch_add || op == Op::masked_compare_swap) return false;
    return (op != Op::fetch_add && op != Op::compare_swap) || length == 8;
  }
  MORI_DEVICE static constexpr uint32_t code(Op op) {
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
  MORI_DEVICE static constexpr uint32_t units(const Request&) { return 1; }

  /// Writes the entry, all 64 bytes. Callers: one lane.
  MORI_DEVICE static void encode(const Queue& q, uint64_t position, const Request& r) {
    const uint32_t of_ring = q.depth * 4;
    const uint64_t at = position % q.depth * 4;
    const bool atomic = r.op == Op::fetch_add || r.op == Op::compare_swap;
    const bool inlined = (r.flags & kInline) != 0;
    const bool first_lap = (position / q.depth & 1) == 0;
    const uint32_t flags = ((r.flags & kSignaled) != 0 ? kSignalBit : 0) |
                           ((r.flags & kFence) != 0 ? kFenceBit : 0) |
                           ((r.flags & kSolicited) != 0 ? kSolicitedBit : 0) | (inlined ? kInlineBit : 0) |
                           (first_lap ? kColorBit : 0);
    const uint32_t segments = inlined ? 0 : 1;
    store_segment(q.sq, at, of_ring, position % q.depth,
                  two(be32(code(r.op) << 24 | segments << 16 | flags), be32(r.immediate)));
    if (atomic) {
      const uint64_t compare = r.op == Op::compare_swap ? r.compare : 0;
      store_segment(q.sq, at + 1, of_ring, be64(r.remote), two(be32(r.rkey), be32(uint32_t(r.value >> 32))));
      store_segment(q.sq, at + 2, of_ring, two(be32(uint32_t(r.value)), be32(uint32_t(compare >> 32))),
                    two(be32(uint32_t(compare)), be32(r.lkey)));
      store_segment(q.sq, at + 3, of_ring, be64(r.local), 0);
      return;
    }
    const bool send = r.op == Op::send || r.op == Op::send_imm;
    store_segment(q.sq, at + 1, of_ring, send ? 0 : be64(r.remote),
                  two(send ? 0 : be32(r.rkey), be32(r.length)));
    if (inlined) {
      store_segment(q.sq, at + 2, of_ring, inline_word(r.local, r.length, 0),
                    inline_word(r.local, r.length, 8));
      store_segment(q.sq, at + 3, of_ring, inline_word(r.local, r.length, 16),
                    inline_word(r.local, r.length, 24));
    } else {
      store_segment(q.sq, at + 2, of_ring, be64(r.local), two(be32(r.length), be32(r.lkey)));
      store_segment(q.sq, at + 3, of_ring, 0, 0);
    }
  }

  MORI_DEVICE static void ring(Queue& q, uint64_t end) {
    store_release<Scope::system>(global<uint64_t>(q.doorbell), uint64_t(q.qpn) << 24 | end % q.depth);
  }

  /// The completion at the head of the ring, if there is one. Callers: the holder of the poll lock.
  MORI_DEVICE static bool take(Queue& q, Completion& out) {
    const uint64_t entry = q.cq + (q.consumed & (q.cq_depth - 1)) * kCompletionBytes;
    const uint64_t tail = load_acquire<Scope::system>(global<const uint64_t>(entry + 24));
    const uint32_t last = be32(uint32_t(tail >> 32));
    const uint32_t wanted = (q.consumed & q.cq_depth) == 0 ? 1u : 0u;
    const bool valid = (last & 1u) == wanted && (last >> 5 & 7u) == kSendMsn;
    if (valid) {
      out.failed = (last & 2u) != 0;
      out.status = out.failed ? be32(uint32_t(tail)) : 0;
      q.completed_messages =
          extend(q.completed_messages, be32(*global<const uint32_t>(entry + 4)) & 0xffffffu, 24);
      out.completed = q.completed_messages;
      ++q.consumed;
      if (q.cq_doorbell != 0)
        store_release<Scope::system>(global<uint64_t>(q.cq_doorbell),
                                     uint64_t(q.cqn) << 24 | (q.consumed & (q.cq_depth - 1)));
    }
    return valid;
  }
};

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace mori::ibgda
