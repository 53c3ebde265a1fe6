// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The two directions of a connection: what waits to be sent, partly where it lies in registered memory, and
// what came and is not read yet.
#pragma once
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "src/transport/ibgda/softnic/regions.hpp"

namespace mori::ibgda::tcp {

/// A connection that is over, in words for whoever used it.
struct Broken {
  std::string why;
};

class Outbox {
 public:
  /// Copies the bytes behind what waits.
  void add(const void* bytes, uint64_t count);
  template <class T>
  void add(const T& plain) {
    add(&plain, sizeof plain);
  }
  /// Memory of the region with this local key: read when it is sent, and refused then if the region is gone.
  void refer(uint64_t address, uint64_t count, uint32_t lkey);

  bool empty() const { return pieces_.empty(); }
  uint64_t waiting() const { return waiting_; }  ///< bytes
  /// Sends what the socket takes; the bytes. Throws Broken.
  uint64_t send(int fd, const Regions& regions);

 private:
  struct Piece {
    std::vector<char> own;  ///< empty: of a region
    uint64_t address = 0, bytes = 0, sent = 0;
    uint32_t lkey = 0;
    uint64_t begin() const { return (own.empty() ? address : reinterpret_cast<uint64_t>(own.data())) + sent; }
    uint64_t left() const { return (own.empty() ? bytes : own.size()) - sent; }
  };
  std::deque<Piece> pieces_;
  std::vector<char> spare_;  ///< memory of a piece that was sent
  uint64_t waiting_ = 0;
};

class Inbox {
 public:
  Inbox() : buffer_(kBytes) {}

  /// The next bytes, if all of them are here; they stay until the next fill().
  const unsigned char* take(uint64_t count) {
    if (end_ - begin_ < count) return nullptr;
    begin_ += count;
    return reinterpret_cast<const unsigned char*>(buffer_.data()) + begin_ - count;
  }
  uint64_t here() const { return end_ - begin_; }
  /// Receives what there is room for; the bytes, 0 if none came. Throws Broken, also when the peer hung up.
  uint64_t fill(int fd);
  /// Receives straight into memory, when nothing is here.
  static uint64_t receive(int fd, uint64_t address, uint64_t count);

 private:
  static constexpr uint64_t kBytes = 128 << 10;
  std::vector<char> buffer_;
  uint64_t begin_ = 0, end_ = 0;
};

}  // namespace mori::ibgda::tcp
