// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// memfd_create, seals, mmap.
#include "src/io/backends/shm/shared_memory.hpp"

#include <fcntl.h>
#include <sys/mman.h>

#include <cerrno>
#include <string>
#include <system_error>

#include "src/core/errors.hpp"

#ifndef MADV_POPULATE_WRITE  // Linux 5.14; older C libraries do not name it
#define MADV_POPULATE_WRITE 23
#endif

namespace mori::io {

std::shared_ptr<SharedMemory> SharedMemory::create(uint64_t bytes, bool prefault) {
  const auto no_room = [&](const char* call) {
    return core::CapacityError("allocate: bytes=" + std::to_string(bytes) + ": " + call + ": " +
                               std::generic_category().message(errno));
  };
  if (bytes == 0 || bytes > uint64_t(1) << 62) {
    throw core::ConfigError("allocate: bytes=" + std::to_string(bytes) +
                            " must be positive and at most 2^62");
  }
  Fd fd(memfd_create("mori-io", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) throw no_room("memfd_create");
  if (ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) throw no_room("ftruncate");
  if (fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0)
    throw no_room("F_ADD_SEALS");
  void* const memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
  if (memory == MAP_FAILED) throw no_room("mmap");
  std::shared_ptr<SharedMemory> shared(
      new SharedMemory(std::move(fd), reinterpret_cast<uint64_t>(memory), bytes));
  madvise(memory, bytes, MADV_HUGEPAGE);  // a wish: most systems keep shared memory in small pages
  if (prefault && madvise(memory, bytes, MADV_POPULATE_WRITE) != 0) {
    if (errno != EINVAL) throw no_room("prefault");
    volatile uint8_t* const pages = static_cast<uint8_t*>(memory);  // an older kernel
    for (uint64_t at = 0; at < bytes; at += 4096) pages[at] = 0;
  }
  return shared;
}

SharedMemory::~SharedMemory() { munmap(reinterpret_cast<void*>(address_), bytes_); }

}  // namespace mori::io
