// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// io_uring by its system calls: two rings shared with the kernel, one of requests and one of completions.
// Used by one thread at a time. A container's seccomp profile, kernel.io_uring_disabled or an old kernel may
// forbid it: make() then gives nothing and a reason.
#pragma once
#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "src/io/fd.hpp"

struct io_uring_sqe;  // of the kernel's header
struct io_uring_cqe;

namespace mori::io::file {

class Uring {
 public:
  struct Completion {
    uint64_t tag;
    int32_t result;  ///< bytes, or -errno
  };

  /// Room for `entries` requests between two enter()s, and twice as many in flight.
  static std::unique_ptr<Uring> make(uint32_t entries, std::string* why);
  ~Uring();
  Uring(const Uring&) = delete;
  Uring& operator=(const Uring&) = delete;

  /// Pins buffers for the life of the ring, so that fixed requests need not. False where that is not allowed.
  bool register_buffers(std::span<const iovec> buffers);

  // Queue one request; submitted by the next enter(). False: full, enter() first. What `memory` points to
  // stays in place until the completion.
  bool transfer(bool write, int fd, uint64_t offset, std::span<const iovec> memory, uint64_t tag);
  bool transfer_fixed(bool write, int fd, uint64_t offset, const iovec& memory, uint16_t buffer,
                      uint64_t tag);
  bool sync_data(int fd, uint64_t tag);
  bool poll_in(int fd, uint64_t tag);
  bool cancel(uint64_t tag, uint64_t own_tag);

  /// Submits what is queued and, if asked, sleeps until a completion is there. 0, or -errno.
  int enter(bool wait);
  bool reap(Completion& completion);

 private:
  Uring() = default;
  io_uring_sqe* claim();

  Fd fd_;
  struct Map {
    void* base = nullptr;
    size_t bytes = 0;
    ~Map();
  };
  Map rings_, entries_;
  uint32_t* submit_head_ = nullptr;
  uint32_t* submit_tail_ = nullptr;
  uint32_t* complete_head_ = nullptr;
  uint32_t* complete_tail_ = nullptr;
  io_uring_cqe* completions_ = nullptr;
  uint32_t submit_mask_ = 0, complete_mask_ = 0, submit_size_ = 0;
  uint32_t tail_ = 0;       ///< ours; published by enter()
  uint32_t submitted_ = 0;  ///< by the kernel's account
};

}  // namespace mori::io::file
