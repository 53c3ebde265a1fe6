// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// What a transfer is measured against: the same blocks moved by the barest means that the path has, with
// nothing registered, checked, planned, signalled or reported. For `mori bench io` only.
//
//   copy     memcpy of each block, by one thread, between memories mapped here
//   vm       process_vm_writev or readv, as many blocks in a call as the kernel takes
//   stream   one connected socket: writev at one end, readv at the other, both spinning
//
// Each gives the nanoseconds it took, and throws core::TransportError with errno's words.
#pragma once
#include <cstdint>
#include <span>

namespace mori::io::plain {

/// Block i is bytes[i] long, at from[i] and to[i]: addresses, of two processes in case of vm.
struct Blocks {
  std::span<const uint64_t> from, to, bytes;
};

uint64_t copy(const Blocks& blocks);
/// `read`: from `pid`'s memory to mine.
uint64_t vm(const Blocks& blocks, int64_t pid, bool read);

struct Places {
  std::span<const uint64_t> address, bytes;
};

/// Sends the blocks, then waits for one byte that says that all have arrived.
uint64_t stream_out(int fd, const Places& blocks, double timeout_s);
/// Receives the blocks and sends that byte.
uint64_t stream_in(int fd, const Places& blocks, double timeout_s);

}  // namespace mori::io::plain
