// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Tells an engine that it woke up in a child after fork(): its threads are not there and its locks may be
// held for ever, so nothing of it may be touched. One load, no system call, no handler: the kernel wipes the
// page in children.
#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>

#include "src/io/errors.hpp"

namespace mori::io {

class ForkGuard {
 public:
  ForkGuard() : page_bytes_(size_t(sysconf(_SC_PAGESIZE))) {
    void* page = mmap(nullptr, page_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) throw core::TransportError("mmap of one page failed");
    madvise(page, page_bytes_, MADV_WIPEONFORK);
    alive_ = new (page) std::atomic<uint32_t>(1);
  }
  ~ForkGuard() { munmap(alive_, page_bytes_); }
  ForkGuard(const ForkGuard&) = delete;
  ForkGuard& operator=(const ForkGuard&) = delete;

  bool in_child() const { return alive_->load(std::memory_order_relaxed) == 0; }
  void check() const {
    if (in_child())
      throw Refused(StatusCode::err_bad_state,
                    "this engine belongs to the parent process and does not work in a child made by fork(); "
                    "create one here, or start the process with spawn");
  }

 private:
  size_t page_bytes_;
  std::atomic<uint32_t>* alive_;
};

}  // namespace mori::io
