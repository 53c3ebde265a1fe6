// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/io/bench/plain.hpp"

#include <fcntl.h>
#include <limits.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <string>
#include <vector>

#include "src/core/errors.hpp"

namespace mori::io::plain {
namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void fail(const char* what, int error) {
  throw core::TransportError(std::string(what) + ": " + std::strerror(error));
}

std::vector<iovec> vectors(std::span<const uint64_t> address, std::span<const uint64_t> bytes) {
  std::vector<iovec> out(address.size());
  for (size_t i = 0; i < out.size(); ++i) out[i] = {reinterpret_cast<void*>(address[i]), bytes[i]};
  return out;
}

uint64_t since(Clock::time_point start) {
  return uint64_t(std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start).count());
}

/// Moves all of it, whatever part each call takes. `move(iovec*, count)` is a system call.
template <class Move>
void move_all(const char* what, std::vector<iovec> left, Clock::time_point deadline, const Move& move) {
  size_t first = 0;
  uint32_t looks = 0;
  while (first < left.size()) {
    const ssize_t moved = move(left.data() + first, std::min(left.size() - first, size_t(IOV_MAX)));
    if (moved == 0) fail(what, ECONNRESET);
    if (moved < 0) {
      if (errno != EAGAIN && errno != EINTR) fail(what, errno);
      if ((++looks & 1023u) == 0 && Clock::now() > deadline) fail(what, ETIMEDOUT);
      continue;
    }
    size_t rest = size_t(moved);
    while (first < left.size() && rest >= left[first].iov_len) rest -= left[first++].iov_len;
    if (rest != 0) {
      left[first].iov_base = static_cast<char*>(left[first].iov_base) + rest;
      left[first].iov_len -= rest;
    }
  }
}

Clock::time_point prepare_socket(int fd, double timeout_s) {
  const int flags = ::fcntl(fd, F_GETFL);
  if (flags < 0 || ::fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) fail("fcntl", errno);
  return Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(timeout_s));
}

}  // namespace

uint64_t copy(const Blocks& blocks) {
  const auto start = Clock::now();
  for (size_t i = 0; i < blocks.bytes.size(); ++i) {
    std::memcpy(reinterpret_cast<void*>(blocks.to[i]), reinterpret_cast<const void*>(blocks.from[i]),
                blocks.bytes[i]);
  }
  return since(start);
}

uint64_t vm(const Blocks& blocks, int64_t pid, bool read) {
  // More blocks a call are slower: both vectors are copied and pages are pinned by up to 16 at a time.
  constexpr size_t kBlocksPerCall = 512;
  const auto mine = vectors(read ? blocks.to : blocks.from, blocks.bytes);
  const auto theirs = vectors(read ? blocks.from : blocks.to, blocks.bytes);
  const auto start = Clock::now();
  for (size_t first = 0; first < mine.size(); first += kBlocksPerCall) {
    const size_t count = std::min(kBlocksPerCall, mine.size() - first);
    size_t expected = 0;
    for (size_t i = first; i < first + count; ++i) expected += mine[i].iov_len;
    const auto call = read ? ::process_vm_readv : ::process_vm_writev;
    const ssize_t moved = call(pid_t(pid), mine.data() + first, count, theirs.data() + first, count, 0);
    if (moved < 0) fail("process_vm", errno);
    if (size_t(moved) != expected) fail("process_vm moved a part only", EFAULT);
  }
  return since(start);
}

uint64_t stream_out(int fd, const Places& blocks, double timeout_s) {
  const auto deadline = prepare_socket(fd, timeout_s);
  const auto list = vectors(blocks.address, blocks.bytes);
  const auto start = Clock::now();
  move_all("sending", list, deadline, [&](const iovec* left, size_t count) {
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(left);
    message.msg_iovlen = count;
    return ::sendmsg(fd, &message, MSG_NOSIGNAL);
  });
  char word = 0;
  move_all("waiting for the other end", {iovec{&word, 1}}, deadline,
           [&](const iovec* left, size_t count) { return ::readv(fd, left, int(count)); });
  return since(start);
}

uint64_t stream_in(int fd, const Places& blocks, double timeout_s) {
  const auto deadline = prepare_socket(fd, timeout_s);
  const auto list = vectors(blocks.address, blocks.bytes);
  const auto start = Clock::now();
  move_all("receiving", list, deadline,
           [&](const iovec* left, size_t count) { return ::readv(fd, left, int(count)); });
  char word = 1;
  move_all("answering", {iovec{&word, 1}}, deadline,
           [&](const iovec* left, size_t count) { return ::writev(fd, left, int(count)); });
  return since(start);
}

}  // namespace mori::io::plain
