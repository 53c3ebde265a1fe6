// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// What a poster can do wrong, and what the software NIC must say: the beginning of its sentence.
#pragma once
#include "tests/ibgda/softnic_bench.hpp"

struct Mistake {
  const char* name;
  const char*
      sentence;  ///< what violations() says, from its beginning; empty: nothing, the request's fault only
  Fault fault;
  void (*make)(Bench&);
};

template <class T>
T& word(uint64_t address) {
  return *reinterpret_cast<T*>(address);
}

/// Posts a request after changing a byte of its entry.
inline void post_changed(Bench& b, const Request& r, uint32_t offset, unsigned char bits) {
  const uint32_t units = b.encode(r);
  uint64_t unit = 0;
  with_family(b.queue.family, [&](auto f) { unit = f.kUnit; });
  word<unsigned char>(b.queue.sq + b.position % b.queue.depth * unit + offset) ^= bits;
  b.ring(units);
}
/// A write of 8 bytes with a changed byte.
template <uint32_t kOffset, unsigned char kBits>
void changed(Bench& b) {
  post_changed(b, b.write(8), kOffset, kBits);
}
/// The first of two entries with one doorbell: the register repeats the second.
template <uint32_t kOffset>
void changed_first(Bench& b) {
  const uint32_t units = b.encode(b.write(8));
  word<unsigned char>(b.queue.sq + b.position % b.queue.depth * 64 + kOffset) ^= 1;
  b.position += units;
  b.post(b.write(8));
}
template <uint32_t kLength, uint32_t kOffset>
void changed_inline(Bench& b) {
  Request r = b.write(kLength);
  r.flags |= kInline;
  post_changed(b, r, kOffset, 1);
}
template <Op kOp, uint32_t kOffset, uint32_t kLength = 8>
void changed_atomic(Bench& b) {
  Request r = b.write(kLength);
  r.op = kOp;
  post_changed(b, r, kOffset, 1);
}
template <class Change>
void post_with(Bench& b, Change change) {
  Request r = b.write(8);
  change(r);
  b.post(r);
}
/// A good request, the register of which is changed.
template <class Change>
void post_register(Bench& b, Change change) {
  const uint32_t units = b.encode(b.write(8));
  const uint64_t real = b.queue.doorbell;
  uint64_t elsewhere = 0;
  b.queue.doorbell = Bench::address(&elsewhere);
  b.ring(units);
  b.queue.doorbell = real;
  __atomic_store_n(&word<uint64_t>(real), change(b, elsewhere), __ATOMIC_RELEASE);
}
/// A changed register of the completion queue, and a good request, which makes the NIC look.
template <class Change>
void post_taken(Bench& b, Change change) {
  uint64_t& taken = word<uint64_t>(b.queue.cq_doorbell);
  __atomic_store_n(&taken, change(b, taken), __ATOMIC_RELEASE);
  b.post(b.write(8));
}
/// A good request elsewhere, and then the register as it was before.
inline void ring_again(Bench& b) {
  const uint64_t before = word<uint64_t>(b.queue.doorbell);
  Request r = b.write(8);
  r.remote += 2048;
  b.post(r);
  Completion done;
  if (!b.wait(done) || done.failed) complain("the request before the old doorbell was not done");
  __atomic_store_n(&word<uint64_t>(b.queue.doorbell), before, __ATOMIC_RELEASE);
}

inline constexpr const char* kOther = "the register names another queue";
inline constexpr const char* kStale = "bytes behind the last segment are set";
inline constexpr const char* kImmediate = "an immediate is set, which this operation does not have";
inline constexpr const char* kOperand = "an operand is set, which this operation does not have";
inline constexpr const char* kTooMuch = "a doorbell names more than the ring holds, or what is done";
inline constexpr const char* kBeyond = "the register's index is beyond the ring";
inline constexpr const char* kReservedBits = "reserved bits of the register are set";
inline constexpr const char* kOtherTaken = "the completion register names another queue";
inline constexpr const char* kNotWritten = "completions are given back that were not written";

inline constexpr Mistake kOfAll[] = {
    {"a local key of nobody", "", Fault::local_protection,
     [](Bench& b) { post_with(b, [](Request& r) { r.lkey ^= 0x400; }); }},
    {"a local key of another rank", "", Fault::local_protection,
     [](Bench& b) {
       const Bench other(b.queue.family);
       post_with(b, [&](Request& r) { r.lkey = other.lkey; });
     }},
    {"a remote key as local key", "", Fault::local_protection,
     [](Bench& b) { post_with(b, [](Request& r) { r.lkey ^= 1; }); }},
    {"the key of a region that is gone", "", Fault::local_protection,
     [](Bench& b) {
       const uint32_t gone = b.nic.add_region(Bench::address(b.here), 64).local;
       b.nic.remove_region(gone);
       const uint32_t follower = b.nic.add_region(Bench::address(b.here), 64).local;
       if (follower == gone) complain("a key was given again");
       post_with(b, [&](Request& r) { r.lkey = gone; });
     }},
    {"bytes that a region no longer has", "", Fault::local_protection,
     [](Bench& b) {
       b.nic.resize_region(b.lkey, 7);
       b.post(b.write(8));
     }},
    {"local bytes behind the region", "", Fault::local_protection,
     [](Bench& b) { post_with(b, [](Request& r) { r.local += 4089; }); }},
    {"local bytes before the region", "", Fault::local_protection,
     [](Bench& b) { post_with(b, [](Request& r) { r.local -= 1; }); }},
    {"a local length of everything", "", Fault::local_protection,
     [](Bench& b) { post_with(b, [](Request& r) { r.length = 0x7fffffff; }); }},
    {"a remote key of nobody", "", Fault::remote_access,
     [](Bench& b) { post_with(b, [](Request& r) { r.rkey ^= 1; }); }},
    {"my own key as remote key", "", Fault::remote_access,
     [](Bench& b) { post_with(b, [](Request& r) { r.rkey = r.lkey; }); }},
    {"remote bytes behind the window", "", Fault::remote_access,
     [](Bench& b) { post_with(b, [](Request& r) { r.remote += 4089; }); }},
    {"remote bytes before the window", "", Fault::remote_access,
     [](Bench& b) { post_with(b, [](Request& r) { r.remote -= 1; }); }},
    {"a remote address at the end of the world", "", Fault::remote_access,
     [](Bench& b) { post_with(b, [](Request& r) { r.remote = ~uint64_t(0) - 3; }); }},
    {"an atomic off its alignment", "", Fault::remote_invalid,
     [](Bench& b) {
       post_with(b, [](Request& r) {
         r.op = Op::fetch_add;
         r.remote += 4;
       });
     }},
};
inline constexpr Mistake kOfMlx5[] = {
    {"an atomic of 4 bytes", "the segment's length is 4 instead of 8", Fault::bad_entry,
     [](Bench& b) {
       post_with(b, [](Request& r) {
         r.op = Op::compare_swap;
         r.length = 4;
       });
     }},
    {"index", "the index is 0 instead of 1", Fault::bad_entry, changed_first<2>},
    {"queue number", "the queue number is ", Fault::bad_entry, changed_first<6>},
    {"length in segments", "the length in segments is 7 instead of 3", Fault::bad_entry, changed<7, 4>},
    {"signature", "reserved bits of the control segment are set", Fault::bad_entry, changed<8, 1>},
    {"reserved flag", "reserved bits of the control segment are set", Fault::bad_entry, changed<11, 0x10>},
    {"immediate of another operation", kImmediate, Fault::bad_entry, changed<15, 1>},
    {"word behind the remote key", "the word behind the remote key is set", Fault::bad_entry, changed<28, 1>},
    {"opcode", "opcode 136 is none that this NIC executes", Fault::bad_entry, changed<3, 0x80>},
    {"opcode modifier", "opcode modifier 8 does not fit 8 bytes", Fault::bad_entry, changed<0, 8>},
    {"compare of an addition", kOperand, Fault::bad_entry, changed_atomic<Op::fetch_add, 40>},
    {"operand behind a word", kOperand, Fault::bad_entry, changed_atomic<Op::masked_fetch_add, 40, 4>},
    {"stale bytes", kStale, Fault::bad_entry, changed<63, 1>},
    {"stale inline bytes", kStale, Fault::bad_entry, changed_inline<8, 50>},
    {"padding of a full inline block", kStale, Fault::bad_entry, changed_inline<20, 60>},
    {"inline data in an atomic", "inline data in a request that writes none", Fault::bad_entry,
     [](Bench& b) {
       post_with(b, [](Request& r) {
         r.op = Op::fetch_add;
         r.flags |= kInline;
       });
     }},
    {"doorbell beyond the ring", kTooMuch, Fault::bad_entry,
     [](Bench& b) {
       b.encode(b.write(8));
       b.ring(0x4000);
     }},
    {"record of 17 bits", "the record has more than 16 bits", Fault::bad_entry,
     [](Bench& b) {
       post_register(b, [](Bench& bench, uint64_t value) {
         word<uint32_t>(bench.queue.record + 4) |= __builtin_bswap32(1 << 16);
         return value;
       });
     }},
    {"register of another queue", kOther, Fault::bad_entry,
     [](Bench& b) { post_register(b, [](Bench&, uint64_t value) { return value ^ uint64_t(1) << 48; }); }},
    {"register of another entry's opcode", "the register is not the control segment", Fault::bad_entry,
     [](Bench& b) { post_register(b, [](Bench&, uint64_t value) { return value ^ uint64_t(0x18) << 24; }); }},
    {"register of another entry's length", "the register is not the control segment", Fault::bad_entry,
     [](Bench& b) { post_register(b, [](Bench&, uint64_t value) { return value ^ uint64_t(1) << 56; }); }},
    {"register before the record", "the register is ahead of the record", Fault::bad_entry,
     [](Bench& b) { post_register(b, [](Bench&, uint64_t value) { return value + (uint64_t(2) << 16); }); }},
    {"register again", "the register goes back", Fault::bad_entry, ring_again},
    {"completions that were not written", kNotWritten, Fault::bad_entry,
     [](Bench& b) { post_taken(b, [](Bench&, uint64_t) { return uint64_t(__builtin_bswap32(2)); }); }},
    {"completion record of 25 bits", "the completion record has more than 24 bits", Fault::bad_entry,
     [](Bench& b) {
       post_taken(b, [](Bench&, uint64_t value) { return value | __builtin_bswap32(1 << 24); });
     }},
};
inline constexpr Mistake kOfBnxtRe[] = {
    {"an atomic of 4 bytes", "the segment's length is 4 instead of 8", Fault::bad_entry,
     [](Bench& b) {
       post_with(b, [](Request& r) {
         r.op = Op::compare_swap;
         r.length = 4;
       });
     }},
    {"size in slots", "the size in slots is 2 instead of 3", Fault::bad_entry, changed<2, 1>},
    {"reserved flag", "reserved flags are set", Fault::bad_entry, changed<1, 0x20>},
    {"type", "type 68 is none that this NIC executes", Fault::bad_entry, changed<0, 0x40>},
    {"reserved word", "reserved words are set", Fault::bad_entry, changed<28, 1>},
    {"immediate of another operation", kImmediate, Fault::bad_entry, changed<4, 1>},
    {"compare of an addition", kOperand, Fault::bad_entry, changed_atomic<Op::fetch_add, 24>},
    {"length of the segment", "the segment's length is 9 instead of 8", Fault::bad_entry, changed<44, 1>},
    {"stale inline bytes", kStale, Fault::bad_entry, changed_inline<8, 47>},
    {"inline data in a read", "inline data in a request that writes none", Fault::bad_entry,
     [](Bench& b) {
       post_with(b, [](Request& r) {
         r.op = Op::read;
         r.flags |= kInline;
       });
     }},
    {"PSN of the MSN table", "the line of the MSN table is not that of this request", Fault::bad_entry,
     [](Bench& b) {
       const uint32_t units = b.encode(b.write(8));
       word<uint64_t>(b.queue.msn + 8) ^= 1;
       b.ring(units);
     }},
    {"packets of the MSN table", "the line of the MSN table is not that of this request", Fault::bad_entry,
     [](Bench& b) {
       Request r = b.write(4000);
       const uint32_t units = b.encode(r);
       b.queue.packets = b.queue.messages = 1;
       b.queue.mtu = 256;  // another than the NIC's
       BnxtRe::publish(b.queue, b.position, r);
       b.ring(units);
     }},
    {"half of an entry", "the doorbell names half of an entry", Fault::bad_entry,
     [](Bench& b) {
       b.encode(b.write(8));
       b.ring(1);
       b.position += 2;
     }},
    {"doorbell again", kTooMuch, Fault::bad_entry, ring_again},
    {"index beyond the ring", kBeyond, Fault::bad_entry,
     [](Bench& b) {
       post_register(b, [](Bench& bench, uint64_t value) { return value + bench.queue.depth; });
     }},
    {"register of another queue", kOther, Fault::bad_entry,
     [](Bench& b) { post_register(b, [](Bench&, uint64_t value) { return value + (uint64_t(1) << 32); }); }},
    {"register of the wrong type", "the register is rung with the type of another queue", Fault::bad_entry,
     [](Bench& b) { post_register(b, [](Bench&, uint64_t value) { return value | BnxtRe::kCqDoorbell; }); }},
    {"register without valid bit", "the register is rung without its valid bit", Fault::bad_entry,
     [](Bench& b) { post_register(b, [](Bench&, uint64_t value) { return value & ~BnxtRe::kValid; }); }},
    {"reserved bit of the register", kReservedBits, Fault::bad_entry,
     [](Bench& b) { post_register(b, [](Bench&, uint64_t value) { return value | uint64_t(1) << 28; }); }},
    {"completion register of another queue", kOtherTaken, Fault::bad_entry,
     [](Bench& b) {
       post_taken(b, [](Bench& bench, uint64_t value) {
         return (value & ~(0xfffffull << 32)) | uint64_t(bench.queue.qpn) << 32;
       });
     }},
    {"completion register of the wrong type", "the completion register has the type of another",
     Fault::bad_entry,
     [](Bench& b) { post_taken(b, [](Bench&, uint64_t value) { return value & ~BnxtRe::kCqDoorbell; }); }},
    {"completion register without valid bit", "the completion register is rung without its valid bit",
     Fault::bad_entry,
     [](Bench& b) { post_taken(b, [](Bench&, uint64_t value) { return value & ~BnxtRe::kValid; }); }},
    {"completion index beyond the ring", "the completion register's index is beyond the ring",
     Fault::bad_entry,
     [](Bench& b) {
       post_taken(b, [](Bench& bench, uint64_t value) { return value + bench.queue.cq_depth; });
     }},
    {"completions that were not written", kNotWritten, Fault::bad_entry,
     [](Bench& b) { post_taken(b, [](Bench&, uint64_t value) { return value + 1; }); }},
};
inline constexpr Mistake kOfIonic[] = {
    {"index", "the index is 0 instead of 1", Fault::bad_entry, changed<0, 1>},
    {"color", "the color is that of another lap", Fault::bad_entry, changed<11, 0x10>},
    {"reserved flag", "reserved flags are set", Fault::bad_entry, changed<10, 0x40>},
    {"number of segments", "the number of segments is 2 instead of 1", Fault::bad_entry, changed<9, 3>},
    {"operation", "operation 161 is none that this NIC executes", Fault::bad_entry, changed<8, 0x80>},
    {"immediate of another operation", kImmediate, Fault::bad_entry, changed<12, 1>},
    {"compare of an addition", kOperand, Fault::bad_entry, changed_atomic<Op::fetch_add, 43>},
    {"stale bytes of an atomic", kStale, Fault::bad_entry, changed_atomic<Op::fetch_add, 56>},
    {"length of the segment", "the segment's length is 9 instead of 8", Fault::bad_entry, changed<43, 1>},
    {"stale bytes", kStale, Fault::bad_entry, changed<60, 1>},
    {"stale inline bytes", kStale, Fault::bad_entry, changed_inline<8, 63>},
    {"inline data in a read", "inline data in a request that writes none", Fault::bad_entry,
     [](Bench& b) {
       post_with(b, [](Request& r) {
         r.op = Op::read;
         r.flags |= kInline;
       });
     }},
    {"index beyond the ring", kBeyond, Fault::bad_entry,
     [](Bench& b) {
       post_register(b, [](Bench& bench, uint64_t value) { return value + bench.queue.depth; });
     }},
    {"register of another queue", kOther, Fault::bad_entry,
     [](Bench& b) { post_register(b, [](Bench&, uint64_t value) { return value + (1 << 24); }); }},
    {"reserved bit of the register", kReservedBits, Fault::bad_entry,
     [](Bench& b) { post_register(b, [](Bench&, uint64_t value) { return value | uint64_t(1) << 50; }); }},
    {"completion register of another queue", kOtherTaken, Fault::bad_entry,
     [](Bench& b) {
       post_taken(b, [](Bench& bench, uint64_t value) {
         return (value & 0xffffff) | uint64_t(bench.queue.qpn) << 24;
       });
     }},
    {"completion index beyond the ring", "the completion register's index is beyond the ring",
     Fault::bad_entry,
     [](Bench& b) {
       post_taken(b, [](Bench& bench, uint64_t value) { return value + bench.queue.cq_depth; });
     }},
    {"completions that were not written", kNotWritten, Fault::bad_entry,
     [](Bench& b) { post_taken(b, [](Bench&, uint64_t value) { return value + 1; }); }},
};
