// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/transport/ibgda/softnic/decode.hpp"

#include <cstring>

#include "src/transport/ibgda/providers/table.hpp"

namespace mori::ibgda {
namespace {

/// Numbers of an entry, by byte offset.
class Bytes {
 public:
  explicit Bytes(uint64_t at) : at_(reinterpret_cast<const unsigned char*>(at)) {}
  const unsigned char* at(uint32_t offset) const { return at_ + offset; }
  bool zero(uint32_t offset, uint32_t bytes) const {
    for (uint32_t i = 0; i < bytes; ++i) {
      if (at_[offset + i] != 0) return false;
    }
    return true;
  }
  uint32_t u8(uint32_t offset) const { return at_[offset]; }
  uint64_t le(uint32_t offset, uint32_t bytes) const {
    uint64_t value = 0;
    for (uint32_t i = bytes; i-- > 0;) value = value << 8 | at_[offset + i];
    return value;
  }
  uint64_t be(uint32_t offset, uint32_t bytes) const {
    uint64_t value = 0;
    for (uint32_t i = 0; i < bytes; ++i) value = value << 8 | at_[offset + i];
    return value;
  }

 private:
  const unsigned char* at_;
};

constexpr uint32_t kAtomicBytes = 8;  // of atomics without masks
constexpr const char* kStale = "bytes behind the last segment are set";
constexpr const char* kImmediate = "an immediate is set, which this operation does not have";
constexpr const char* kOperand = "an operand is set, which this operation does not have";

std::string differs(const char* field, uint64_t is, uint64_t wanted) {
  return std::string(field) + " is " + std::to_string(is) + " instead of " + std::to_string(wanted);
}

Entry decode_mlx5(const Queue& q, uint64_t position, std::string& wrong) {
  const Bytes e(q.sq + position % q.depth * 64);
  Entry out;
  Request& r = out.request;
  const uint32_t control = uint32_t(e.be(0, 4)), words = uint32_t(e.be(4, 4)), segments = words & 0x3f;
  const uint32_t opcode = control & 0xff, mode = control >> 24, bits = e.u8(11);
  if ((control >> 8 & 0xffff) != (position & 0xffff)) {
    wrong = differs("the index", control >> 8 & 0xffff, position & 0xffff);
  } else if (words >> 8 != q.qpn) {
    wrong = differs("the queue number", words >> 8, q.qpn);
  } else if (e.u8(8) != 0 || e.le(9, 2) != 0 || (bits & ~0x8au) != 0) {
    wrong = "reserved bits of the control segment are set";
  } else if (e.le(12, 4) != 0) {
    wrong = kImmediate;
  } else if (opcode != Mlx5::kNop && e.le(28, 4) != 0) {
    wrong = "the word behind the remote key is set";
  }
  r.flags = ((bits & 0x08) != 0 ? uint32_t(kSignaled) : 0) | ((bits & 0x80) != 0 ? uint32_t(kFence) : 0);
  out.units = (segments + 3) / 4;
  uint32_t wanted = 0;
  const auto data = [&](uint32_t at) {
    const uint32_t length = uint32_t(e.be(at, 4));
    if ((length >> 31) != 0) {
      r.flags |= kInline;
      r.length = length & 0x7fffffff;
      out.payload = e.at(at + 4);
      wanted = at / 16 + (4 + r.length + 15) / 16;
      if (wanted > 4) wrong = "inline bytes leave the block";
    } else {
      r.length = length;
      r.lkey = uint32_t(e.be(at + 4, 4));
      r.local = e.be(at + 8, 8);
      wanted = at / 16 + 1;
    }
  };
  r.remote = e.be(16, 8);
  r.rkey = uint32_t(e.be(24, 4));
  const bool word = mode == Mlx5::kModeWord;
  switch (opcode) {
    case Mlx5::kNop:
      r = {.op = Op::nop, .flags = r.flags};
      wanted = 1;
      break;
    case Mlx5::kWrite:
      r.op = Op::write;
      segments == 2 ? void(wanted = 2) : data(32);
      break;
    case Mlx5::kRead:
      r.op = Op::read;
      segments == 2 ? void(wanted = 2) : data(32);
      break;
    case Mlx5::kFetchAdd:
    case Mlx5::kCompareSwap:
      r.op = opcode == Mlx5::kFetchAdd ? Op::fetch_add : Op::compare_swap;
      r.value = e.be(32, 8);
      r.compare = e.be(40, 8);
      data(48);
      if (wrong.empty() && r.op == Op::fetch_add && r.compare != 0) wrong = kOperand;
      break;
    case Mlx5::kMaskedFetchAdd:
      r.op = Op::masked_fetch_add;
      r.value = word ? e.be(32, 4) : e.be(32, 8);
      r.compare_mask = word ? e.be(36, 4) : e.be(40, 8);
      data(48);
      if (wrong.empty() && word && !e.zero(40, 8)) wrong = kOperand;
      break;
    case Mlx5::kMaskedCompareSwap: {
      r.op = Op::masked_compare_swap;
      const uint32_t width = word ? 4 : 8;
      r.value = e.be(32, width);
      r.compare = e.be(32 + width, width);
      if (!word && position % q.depth + 1 == q.depth) {  // the second block is at the ring's beginning
        const Bytes behind(q.sq);
        r.value_mask = e.be(48, 8);
        r.compare_mask = e.be(56, 8);
        r.length = uint32_t(behind.be(0, 4));
        r.lkey = uint32_t(behind.be(4, 4));
        r.local = behind.be(8, 8);
        wanted = 5;
        break;
      }
      r.value_mask = e.be(32 + 2 * width, width);
      r.compare_mask = e.be(32 + 3 * width, width);
      data(word ? 48 : 64);
      break;
    }
    default:
      wrong = "opcode " + std::to_string(opcode) + " is none that this NIC executes";
  }
  if (wrong.empty() && segments != wanted) wrong = differs("the length in segments", segments, wanted);
  if (wrong.empty() && segments <= 4) {
    const uint32_t end =
        (r.flags & kInline) != 0 ? uint32_t(out.payload - e.at(0)) + r.length : segments * 16;
    if (!e.zero(end, 64 - end)) wrong = kStale;
  } else if (wrong.empty() && segments == 5) {
    if (!Bytes(q.sq + (position + 1) % q.depth * 64).zero(16, 48)) wrong = kStale;
  }
  const bool plain = r.op == Op::fetch_add || r.op == Op::compare_swap;
  if (wrong.empty() && plain && r.length != kAtomicBytes)
    wrong = differs("the segment's length", r.length, kAtomicBytes);
  const bool masked = opcode == Mlx5::kMaskedFetchAdd || opcode == Mlx5::kMaskedCompareSwap;
  if (wrong.empty() && mode != (!masked         ? 0u
                                : r.length == 4 ? uint32_t(Mlx5::kModeWord)
                                                : uint32_t(Mlx5::kModeLong))) {
    wrong =
        "opcode modifier " + std::to_string(mode) + " does not fit " + std::to_string(r.length) + " bytes";
  }
  return out;
}

Entry decode_bnxt_re(const Queue& q, uint64_t position, std::string& wrong) {
  const Bytes e(q.sq + position % q.depth * 16);
  Entry out;
  Request& r = out.request;
  const uint32_t type = e.u8(0), flags = e.u8(1), slots = e.u8(2);
  out.units = BnxtRe::kSlots;
  if (slots != BnxtRe::kSlots || e.u8(3) != 0) wrong = differs("the size in slots", slots, BnxtRe::kSlots);
  if ((flags & ~0x1fu) != 0) wrong = "reserved flags are set";
  r.flags = ((flags & BnxtRe::kSignal) != 0 ? uint32_t(kSignaled) : 0) |
            ((flags & BnxtRe::kInlineData) != 0 ? uint32_t(kInline) : 0);
  const bool atomic = type == BnxtRe::kFetchAdd || type == BnxtRe::kCompareSwap;
  r.op = type == BnxtRe::kRead          ? Op::read
         : type == BnxtRe::kFetchAdd    ? Op::fetch_add
         : type == BnxtRe::kCompareSwap ? Op::compare_swap
                                        : Op::write;
  if (!atomic && type != BnxtRe::kRead && type != BnxtRe::kWrite) {
    wrong = "type " + std::to_string(type) + " is none that this NIC executes";
  }
  if (atomic) {
    r.rkey = uint32_t(e.le(4, 4));
    r.remote = e.le(8, 8);
    r.value = e.le(16, 8);
    r.compare = e.le(24, 8);
    if (wrong.empty() && r.op == Op::fetch_add && r.compare != 0) wrong = kOperand;
  } else {
    if (wrong.empty() && e.le(4, 4) != 0) wrong = kImmediate;
    r.length = uint32_t(e.le(8, 8));
    r.remote = e.le(16, 8);
    r.rkey = uint32_t(e.le(24, 4));
    if (wrong.empty() && (e.le(12, 4) != 0 || e.le(28, 4) != 0)) wrong = "reserved words are set";
  }
  if ((r.flags & kInline) != 0) {
    out.payload = e.at(32);
    if (r.length > BnxtRe::kMaxInline) {
      wrong = "more inline bytes than the entry has";
    } else if (wrong.empty() && !e.zero(32 + r.length, BnxtRe::kMaxInline - r.length)) {
      wrong = kStale;
    }
    return out;
  }
  r.local = e.le(32, 8);
  r.lkey = uint32_t(e.le(40, 4));
  const uint32_t length = uint32_t(e.le(44, 4));
  if (atomic) r.length = length;
  if (wrong.empty() && length != (atomic ? kAtomicBytes : r.length))
    wrong = differs("the segment's length", length, atomic ? kAtomicBytes : r.length);
  return out;
}

Entry decode_ionic(const Queue& q, uint64_t position, std::string& wrong) {
  const Bytes e(q.sq + position % q.depth * 64);
  Entry out;
  Request& r = out.request;
  const uint32_t code = e.u8(8), segments = e.u8(9), flags = uint32_t(e.be(10, 2));
  const uint64_t index = position % q.depth;
  if (e.le(0, 8) != index) wrong = differs("the index", e.le(0, 8), index);
  const uint32_t color = (position / q.depth & 1) == 0 ? uint32_t(Ionic::kColorBit) : 0;
  if ((flags & Ionic::kColorBit) != color) wrong = "the color is that of another lap";
  if ((flags & ~0x1fu) != 0) wrong = "reserved flags are set";
  r.flags = ((flags & Ionic::kSignalBit) != 0 ? uint32_t(kSignaled) : 0) |
            ((flags & Ionic::kInlineBit) != 0 ? uint32_t(kInline) : 0);
  const bool inlined = (r.flags & kInline) != 0;
  if (segments != (inlined ? 0u : 1u)) wrong = differs("the number of segments", segments, inlined ? 0 : 1);
  if (wrong.empty() && e.le(12, 4) != 0) wrong = kImmediate;
  r.remote = e.be(16, 8);
  r.rkey = uint32_t(e.be(24, 4));
  switch (code) {
    case Ionic::kFetchAdd:
    case Ionic::kCompareSwap:
      r.op = code == Ionic::kFetchAdd ? Op::fetch_add : Op::compare_swap;
      r.length = 8;
      r.value = e.be(28, 8);
      r.compare = e.be(36, 8);
      r.lkey = uint32_t(e.be(44, 4));
      r.local = e.be(48, 8);
      if (wrong.empty() && r.op == Op::fetch_add && r.compare != 0) wrong = kOperand;
      if (wrong.empty() && !e.zero(56, 8)) wrong = kStale;
      return out;
    case Ionic::kRead:
    case Ionic::kWrite:
      r.op = code == Ionic::kRead ? Op::read : Op::write;
      break;
    default:
      wrong = "operation " + std::to_string(code) + " is none that this NIC executes";
  }
  r.length = uint32_t(e.be(28, 4));
  if (inlined) {
    out.payload = e.at(32);
    if (r.length > Ionic::kMaxInline) {
      wrong = "more inline bytes than the entry has";
    } else if (wrong.empty() && !e.zero(32 + r.length, Ionic::kMaxInline - r.length)) {
      wrong = kStale;
    }
    return out;
  }
  r.local = e.be(32, 8);
  r.lkey = uint32_t(e.be(44, 4));
  if (wrong.empty() && e.be(40, 4) != r.length)
    wrong = differs("the segment's length", e.be(40, 4), r.length);
  if (wrong.empty() && !e.zero(48, 16)) wrong = kStale;
  return out;
}

}  // namespace

Entry decode(const Queue& queue, uint64_t position, std::string& wrong) {
  wrong.clear();
  Entry out;
  switch (queue.family) {
    case Family::mlx5:
      out = decode_mlx5(queue, position, wrong);
      break;
    case Family::bnxt_re:
      out = decode_bnxt_re(queue, position, wrong);
      break;
    case Family::ionic:
      out = decode_ionic(queue, position, wrong);
      break;
    case Family::none:
      wrong = "the queue has no family";
  }
  if (wrong.empty() && (out.request.flags & kInline) != 0 && out.request.op != Op::write)
    wrong = "inline data in a request that writes none";
  if (out.units == 0) out.units = 1;
  return out;
}

}  // namespace mori::ibgda
