// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/backends/rdma/wire.hpp"

#include <cstring>

#include "src/core/errors.hpp"

namespace mori::io::rdma {
namespace {

constexpr uint8_t kVersion = 1;

class Writer {
 public:
  template <class T>
  Writer& number(T value) {
    for (size_t i = 0; i < sizeof(T); ++i) out_.push_back(char(uint64_t(value) >> (8 * i) & 0xff));
    return *this;
  }
  Writer& raw(const void* from, size_t bytes) {
    out_.append(static_cast<const char*>(from), bytes);
    return *this;
  }
  Writer& words(std::string_view text) {
    text = text.substr(0, kMaxWords);
    number(uint16_t(text.size()));
    out_.append(text);
    return *this;
  }
  Writer& address(const Address& a) {
    return raw(a.gid.raw, sizeof a.gid.raw).number(a.lid).number(a.layer).number(a.mtu);
  }
  std::string take() { return std::move(out_); }

 private:
  std::string out_;
};

class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}
  template <class T>
  T number() {
    const std::string_view from = raw(sizeof(T));
    uint64_t value = 0;
    for (size_t i = 0; i < sizeof(T); ++i) value |= uint64_t(uint8_t(from[i])) << (8 * i);
    return T(value);
  }
  std::string_view raw(size_t bytes) {
    if (rest_.size() < bytes) fail("is cut short");
    const std::string_view from = rest_.substr(0, bytes);
    rest_.remove_prefix(bytes);
    return from;
  }
  size_t count(size_t limit, const char* what) {
    const size_t n = number<uint8_t>();
    if (n > limit) fail(std::string("has ") + std::to_string(n) + " " + what);
    return n;
  }
  std::string words() {
    const size_t n = number<uint16_t>();
    if (n > kMaxWords) fail("has a text that is too long");
    return std::string(raw(n));
  }
  Address address() {
    Address a;
    std::memcpy(a.gid.raw, raw(sizeof a.gid.raw).data(), sizeof a.gid.raw);
    a.lid = number<uint16_t>();
    a.layer = number<uint8_t>();
    a.mtu = number<uint8_t>();
    if (a.mtu < verbs::kMtu256 || a.mtu > verbs::kMtu4096) fail("has an unknown MTU");
    return a;
  }
  void version() {
    const unsigned seen = number<uint8_t>();
    if (seen != kVersion) {
      fail("has version " + std::to_string(seen) + ", expected " + std::to_string(kVersion));
    }
  }
  std::string_view rest() const { return rest_; }
  void end() {
    if (!rest_.empty()) fail("has bytes behind its end");
  }
  [[noreturn]] static void fail(const std::string& what) {
    throw core::TransportError("a peer's rdma message " + what);
  }

 private:
  std::string_view rest_;
};

void write_end(Writer& w, const RailEnd& e) {
  w.number(e.epoch).number(e.nic).number(e.read_depth).address(e.address).number(e.pad).number(e.pad_rkey);
  w.number(uint8_t(e.queues.size()));
  for (const QueueEnd& q : e.queues) w.number(q.number).number(q.psn);
}

RailEnd read_end(Reader& r) {
  RailEnd e;
  e.epoch = r.number<uint64_t>();
  e.nic = r.number<uint8_t>();
  e.read_depth = r.number<uint8_t>();
  e.address = r.address();
  e.pad = r.number<uint64_t>();
  e.pad_rkey = r.number<uint32_t>();
  e.queues.resize(r.count(kMaxQueuesPerRail, "queue pairs"));
  if (e.queues.empty()) Reader::fail("has no queue pairs");
  for (QueueEnd& q : e.queues) {
    q.number = r.number<uint32_t>();
    q.psn = r.number<uint32_t>();
    if (q.number >> 24 != 0 || q.psn >> 24 != 0) Reader::fail("has a number of more than 24 bits");
  }
  r.end();
  return e;
}

}  // namespace

std::string encode(const Attachment& attachment) {
  Writer w;
  w.number(kVersion).number(attachment.address).words(attachment.reason);
  w.number(uint8_t(attachment.nics.size()));
  for (const NicCard& n : attachment.nics) {
    w.number(n.index).number(n.rkey).number(n.gbit_per_s).address(n.address).words(n.name);
  }
  return w.take();
}

Attachment decode_attachment(std::string_view bytes) {
  Reader r(bytes);
  r.version();
  Attachment a;
  a.address = r.number<uint64_t>();
  a.reason = r.words();
  a.nics.resize(r.count(kMaxNics, "NICs"));
  for (NicCard& n : a.nics) {
    n.index = r.number<uint8_t>();
    if (n.index >= kMaxNics) Reader::fail("has NIC number " + std::to_string(n.index));
    n.rkey = r.number<uint32_t>();
    n.gbit_per_s = r.number<uint32_t>();
    n.address = r.address();
    n.name = r.words();
  }
  r.end();
  return a;
}

std::string encode_open(const RailEnd& end) {
  Writer w;
  w.number(kVersion).number(uint8_t(Verb::open));
  write_end(w, end);
  return w.take();
}

std::string encode_close(uint64_t epoch) {
  return Writer().number(kVersion).number(uint8_t(Verb::close)).number(epoch).take();
}

Verb decode_verb(std::string_view& bytes) {
  Reader r(bytes);
  r.version();
  const uint8_t verb = r.number<uint8_t>();
  if (verb != uint8_t(Verb::open) && verb != uint8_t(Verb::close)) {
    Reader::fail("asks for " + std::to_string(verb) + ", which is unknown");
  }
  bytes = r.rest();
  return Verb(verb);
}

RailEnd decode_end(std::string_view bytes) {
  Reader r(bytes);
  return read_end(r);
}

uint64_t decode_epoch(std::string_view bytes) {
  Reader r(bytes);
  const uint64_t epoch = r.number<uint64_t>();
  r.end();
  return epoch;
}

std::string encode_answer(const RailEnd& end) {
  Writer w;
  w.number(kVersion);
  write_end(w, end);
  return w.take();
}

RailEnd decode_answer(std::string_view bytes) {
  Reader r(bytes);
  r.version();
  return read_end(r);
}

}  // namespace mori::io::rdma
