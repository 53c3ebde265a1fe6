// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// open, statx, fallocate; pread and pwrite until done.
#include "src/io/backends/file/open_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <system_error>

#include "src/core/errors.hpp"

namespace mori::io::file {
namespace {

std::string last_error() { return std::generic_category().message(errno); }

[[noreturn]] void refuse(const std::string& path, const std::string& why) {
  throw core::ConfigError("register_file: path=" + path + ": " + why);
}

uint64_t size_of(const std::string& path, int fd) {
  struct stat status;
  if (fstat(fd, &status) != 0)
    throw core::TransportError("register_file: path=" + path + ": " + last_error());
  if (S_ISREG(status.st_mode)) return static_cast<uint64_t>(status.st_size);
  if (!S_ISBLK(status.st_mode)) refuse(path, "must be a regular file or a block device");
  const off_t end = lseek(fd, 0, SEEK_END);
  if (end < 0) throw core::TransportError("register_file: path=" + path + ": " + last_error());
  return static_cast<uint64_t>(end);
}

void enlarge(const std::string& path, int fd, uint64_t bytes) {
  int status;
  do {
    status = fallocate(fd, 0, 0, static_cast<off_t>(bytes));
  } while (status != 0 && errno == EINTR);
  if (status != 0 && errno == EOPNOTSUPP) status = ftruncate(fd, static_cast<off_t>(bytes));
  if (status != 0) {
    throw core::CapacityError("register_file: path=" + path + ": no room for bytes=" + std::to_string(bytes) +
                              ": " + last_error());
  }
}

/// Without O_DIRECT, for ranges at any alignment.
Fd plain(int fd) {
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || (flags & O_DIRECT) == 0) return Fd();
  const std::string self = "/proc/self/fd/" + std::to_string(fd);
  Fd again(open(self.c_str(), (flags & (O_ACCMODE | O_DSYNC)) | O_CLOEXEC));
  if (!again) throw core::TransportError("file: " + self + ": " + last_error());
  return again;
}

template <class Byte, class Call>
void whole(const char* what, int fd, uint64_t offset, std::span<Byte> range, Call call) {
  const Fd other = plain(fd);
  while (!range.empty()) {
    const ssize_t done =
        call(other ? other.get() : fd, range.data(), range.size(), static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) {
      throw core::TransportError("file: " + std::string(what) + " at offset " + std::to_string(offset) +
                                 ": " + (done < 0 ? last_error() : "end of file"));
    }
    range = range.subspan(static_cast<size_t>(done));
    offset += static_cast<uint64_t>(done);
  }
}

}  // namespace

Opened open_file(const std::string& path, std::optional<uint64_t> bytes, bool writable,
                 std::optional<bool> direct, bool durable) {
  if (path.empty() || path.find('\0') != std::string::npos) refuse(path, "is not a file's name");
  if (bytes && (*bytes == 0 || *bytes > static_cast<uint64_t>(LLONG_MAX))) {
    throw core::ConfigError("register_file: bytes=" + std::to_string(*bytes) +
                            " must be positive and below 2^63");
  }
  int flags =
      (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK;  // O_NONBLOCK: a FIFO must not wait here
  if (writable && bytes) flags |= O_CREAT;
  Fd fd(open(path.c_str(), flags, 0666));
  if (!fd)
    refuse(path, "cannot be opened for " + std::string(writable ? "writing: " : "reading: ") + last_error());
  uint64_t size = size_of(path, fd.get());
  if (!bytes && size == 0) refuse(path, "is empty; say bytes= to give it a size");
  if (bytes && *bytes > size) {
    if (!writable) {
      refuse(path, "has " + std::to_string(size) + " bytes, fewer than bytes=" + std::to_string(*bytes));
    }
    enlarge(path, fd.get(), *bytes);
  }
  // The descriptor with the flags that say what was wished.
  const std::string self = "/proc/self/fd/" + std::to_string(fd.get());
  const int wished = (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | (durable ? O_DSYNC : 0);
  Fd final(direct.value_or(true) ? open(self.c_str(), wished | O_DIRECT) : -1);
  if (!final) {
    if (direct.value_or(false)) refuse(path, "direct=True, but O_DIRECT fails: " + last_error());
    final.reset(open(self.c_str(), wished));
  }
  if (!final) throw core::TransportError("register_file: path=" + path + ": " + last_error());
  char absolute[PATH_MAX];
  return {.fd = std::move(final),
          .path = realpath(path.c_str(), absolute) != nullptr ? absolute : path,
          .bytes = bytes.value_or(size)};
}

Alignment direct_alignment(int fd) {
  Alignment alignment;
#ifdef STATX_DIOALIGN
  struct statx found;
  if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &found) == 0 && (found.stx_mask & STATX_DIOALIGN) != 0 &&
      found.stx_dio_offset_align != 0) {
    alignment = {found.stx_dio_offset_align, found.stx_dio_mem_align};
  }
#else
  static_cast<void>(fd);
#endif
  return alignment;
}

void read_at(int fd, uint64_t offset, std::span<uint8_t> to) { whole("read", fd, offset, to, ::pread); }

void write_at(int fd, uint64_t offset, std::span<const uint8_t> from) {
  whole("write", fd, offset, from, ::pwrite);
}

}  // namespace mori::io::file
