// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The layout comes from the kernel's header; a system without it (before Linux 5.5) builds a ring that is
// never there.
#include "src/io/backends/file/uring.hpp"

#if __has_include(<linux/io_uring.h>)
#include <linux/io_uring.h>
#endif
#include <poll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

namespace mori::io::file {

Uring::Map::~Map() {
  if (base != nullptr) munmap(base, bytes);
}

#ifdef IORING_FEAT_NODROP
namespace {

std::string last_error() { return std::generic_category().message(errno); }

uint32_t acquire(const uint32_t* at) { return __atomic_load_n(at, __ATOMIC_ACQUIRE); }
void release(uint32_t* at, uint32_t value) { __atomic_store_n(at, value, __ATOMIC_RELEASE); }

void* map(int fd, size_t bytes, uint64_t offset) {
  void* const base =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, static_cast<off_t>(offset));
  if (base == MAP_FAILED) return nullptr;
  madvise(base, bytes, MADV_DONTFORK);
  return base;
}

}  // namespace

std::unique_ptr<Uring> Uring::make(uint32_t entries, std::string* why) {
  io_uring_params params{};
  params.flags = IORING_SETUP_CLAMP;
  std::unique_ptr<Uring> ring(new Uring);
  ring->fd_.reset(static_cast<int>(syscall(SYS_io_uring_setup, entries, &params)));
  if (!ring->fd_) {
    *why = "io_uring is not available: " + last_error();
    return nullptr;
  }
  if ((params.features & IORING_FEAT_NODROP) == 0 || (params.features & IORING_FEAT_SINGLE_MMAP) == 0) {
    *why = "io_uring of this kernel may drop completions";
    return nullptr;
  }
  const size_t submit_bytes = params.sq_off.array + params.sq_entries * sizeof(uint32_t);
  const size_t complete_bytes = params.cq_off.cqes + params.cq_entries * sizeof(io_uring_cqe);
  ring->rings_.bytes = std::max(submit_bytes, complete_bytes);
  ring->rings_.base = map(ring->fd_.get(), ring->rings_.bytes, IORING_OFF_SQ_RING);
  ring->entries_.bytes = params.sq_entries * sizeof(io_uring_sqe);
  ring->entries_.base = map(ring->fd_.get(), ring->entries_.bytes, IORING_OFF_SQES);
  if (ring->rings_.base == nullptr || ring->entries_.base == nullptr) {
    *why = "io_uring: mmap: " + last_error();
    return nullptr;
  }
  uint8_t* const base = static_cast<uint8_t*>(ring->rings_.base);
  const auto word = [base](uint32_t offset) { return reinterpret_cast<uint32_t*>(base + offset); };
  ring->submit_head_ = word(params.sq_off.head);
  ring->submit_tail_ = word(params.sq_off.tail);
  ring->submit_mask_ = *word(params.sq_off.ring_mask);
  ring->submit_size_ = params.sq_entries;
  ring->complete_head_ = word(params.cq_off.head);
  ring->complete_tail_ = word(params.cq_off.tail);
  ring->complete_mask_ = *word(params.cq_off.ring_mask);
  ring->completions_ = reinterpret_cast<io_uring_cqe*>(base + params.cq_off.cqes);
  // Entry i of the queue is always request i: the indirection is not used.
  for (uint32_t i = 0; i < params.sq_entries; ++i) word(params.sq_off.array)[i] = i;
  ring->tail_ = ring->submitted_ = acquire(ring->submit_tail_);
  return ring;
}

bool Uring::register_buffers(std::span<const iovec> buffers) {
  return syscall(SYS_io_uring_register, fd_.get(), IORING_REGISTER_BUFFERS, buffers.data(), buffers.size()) ==
         0;
}

io_uring_sqe* Uring::claim() {
  if (tail_ - acquire(submit_head_) == submit_size_) return nullptr;
  io_uring_sqe* const entry = static_cast<io_uring_sqe*>(entries_.base) + (tail_++ & submit_mask_);
  memset(entry, 0, sizeof *entry);
  return entry;
}

bool Uring::transfer(bool write, int fd, uint64_t offset, std::span<const iovec> memory, uint64_t tag) {
  io_uring_sqe* const entry = claim();
  if (entry == nullptr) return false;
  entry->opcode = write ? IORING_OP_WRITEV : IORING_OP_READV;
  entry->fd = fd;
  entry->off = offset;
  entry->addr = reinterpret_cast<uint64_t>(memory.data());
  entry->len = static_cast<uint32_t>(memory.size());
  entry->user_data = tag;
  return true;
}

bool Uring::transfer_fixed(bool write, int fd, uint64_t offset, const iovec& memory, uint16_t buffer,
                           uint64_t tag) {
  io_uring_sqe* const entry = claim();
  if (entry == nullptr) return false;
  entry->opcode = write ? IORING_OP_WRITE_FIXED : IORING_OP_READ_FIXED;
  entry->fd = fd;
  entry->off = offset;
  entry->addr = reinterpret_cast<uint64_t>(memory.iov_base);
  entry->len = static_cast<uint32_t>(memory.iov_len);
  entry->buf_index = buffer;
  entry->user_data = tag;
  return true;
}

bool Uring::sync_data(int fd, uint64_t tag) {
  io_uring_sqe* const entry = claim();
  if (entry == nullptr) return false;
  entry->opcode = IORING_OP_FSYNC;
  entry->fd = fd;
  entry->fsync_flags = IORING_FSYNC_DATASYNC;
  entry->user_data = tag;
  return true;
}

bool Uring::poll_in(int fd, uint64_t tag) {
  io_uring_sqe* const entry = claim();
  if (entry == nullptr) return false;
  entry->opcode = IORING_OP_POLL_ADD;
  entry->fd = fd;
  entry->poll_events = POLLIN;
  entry->user_data = tag;
  return true;
}

bool Uring::cancel(uint64_t tag, uint64_t own_tag) {
  io_uring_sqe* const entry = claim();
  if (entry == nullptr) return false;
  entry->opcode = IORING_OP_ASYNC_CANCEL;
  entry->fd = -1;
  entry->addr = tag;
  entry->user_data = own_tag;
  return true;
}

int Uring::enter(bool wait) {
  release(submit_tail_, tail_);
  const uint32_t waiting = tail_ - submitted_;
  const bool ready = *complete_head_ != acquire(complete_tail_);
  if (waiting == 0 && (ready || !wait)) return 0;
  const bool sleep = wait && !ready;
  const long done = syscall(SYS_io_uring_enter, fd_.get(), waiting, sleep ? 1 : 0,
                            sleep ? IORING_ENTER_GETEVENTS : 0, nullptr, 0);
  if (done < 0) return -errno;
  submitted_ += static_cast<uint32_t>(done);
  return 0;
}

bool Uring::reap(Completion& completion) {
  const uint32_t head = *complete_head_;
  if (head == acquire(complete_tail_)) return false;
  const io_uring_cqe& entry = completions_[head & complete_mask_];
  completion = {entry.user_data, entry.res};
  release(complete_head_, head + 1);
  return true;
}

#else  // no io_uring

std::unique_ptr<Uring> Uring::make(uint32_t, std::string* why) {
  *why = "built without io_uring: the system's headers have none";
  return nullptr;
}
bool Uring::register_buffers(std::span<const iovec>) { return false; }
bool Uring::transfer(bool, int, uint64_t, std::span<const iovec>, uint64_t) { return false; }
bool Uring::transfer_fixed(bool, int, uint64_t, const iovec&, uint16_t, uint64_t) { return false; }
bool Uring::sync_data(int, uint64_t) { return false; }
bool Uring::poll_in(int, uint64_t) { return false; }
bool Uring::cancel(uint64_t, uint64_t) { return false; }
int Uring::enter(bool) { return -ENOSYS; }
bool Uring::reap(Completion&) { return false; }
#endif

Uring::~Uring() = default;

}  // namespace mori::io::file
