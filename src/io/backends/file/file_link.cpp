// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Opening again, checking identity.
#include "src/io/backends/file/file_link.hpp"

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <system_error>

#include "src/core/errors.hpp"

namespace mori::io::file {
namespace {

constexpr char kMagic[8] = {'m', 'o', 'r', 'i', 'f', 'i', 'l', '1'};

struct Packed {
  char magic[8];
  uint64_t region, bytes, device, inode;
  int32_t fd;
  uint8_t writable, direct, durable, reserved;
};
static_assert(sizeof(Packed) == 48 && std::is_trivially_copyable_v<Packed>);

std::string last_error() { return std::generic_category().message(errno); }

Fd reopen(int fd, int flags) {
  const std::string self = "/proc/self/fd/" + std::to_string(fd);
  return Fd(open(self.c_str(), flags | O_CLOEXEC));
}

}  // namespace

Attachment Attachment::of(const Region& region) {
  struct stat status;
  const int flags = fcntl(region.fd, F_GETFL);
  if (flags < 0 || fstat(region.fd, &status) != 0) {
    throw core::TransportError("file " + region.path + ": " + last_error());
  }
  return {.region = region.id,
          .bytes = region.bytes,
          .device = status.st_dev,
          .inode = status.st_ino,
          .fd = region.fd,
          .writable = (flags & O_ACCMODE) == O_RDWR,
          .direct = (flags & O_DIRECT) != 0,
          .durable = (flags & O_DSYNC) != 0};
}

std::string Attachment::pack() const {
  Packed packed{.magic = {},
                .region = region,
                .bytes = bytes,
                .device = device,
                .inode = inode,
                .fd = fd,
                .writable = writable,
                .direct = direct,
                .durable = durable,
                .reserved = 0};
  memcpy(packed.magic, kMagic, sizeof kMagic);
  return std::string(reinterpret_cast<const char*>(&packed), sizeof packed);
}

std::optional<Attachment> Attachment::unpack(std::string_view text) {
  Packed packed;
  if (text.size() != sizeof packed || memcmp(text.data(), kMagic, sizeof kMagic) != 0) return std::nullopt;
  memcpy(&packed, text.data(), sizeof packed);
  return Attachment{.region = packed.region,
                    .bytes = packed.bytes,
                    .device = packed.device,
                    .inode = packed.inode,
                    .fd = packed.fd,
                    .writable = packed.writable != 0,
                    .direct = packed.direct != 0,
                    .durable = packed.durable != 0};
}

void Phases::enter(bool direct) {
  std::unique_lock<std::mutex> lock(mutex_);
  ++waiting_[direct];
  ended_.wait(lock, [&] { return free(direct); });
  --waiting_[direct];
  ++active_[direct];
}

bool Phases::try_enter(bool direct, bool& waiting) {
  std::lock_guard<std::mutex> guard(mutex_);
  if (!free(direct)) {
    if (!waiting) ++waiting_[direct];
    waiting = true;
    return false;
  }
  if (waiting) --waiting_[direct];
  waiting = false;
  ++active_[direct];
  return true;
}

void Phases::give_up(bool direct, bool& waiting) {
  {
    std::lock_guard<std::mutex> guard(mutex_);
    if (waiting) --waiting_[direct];
    waiting = false;
  }
  ended_.notify_all();
}

void Phases::leave(bool direct) {
  bool awaited = false;
  {
    std::lock_guard<std::mutex> guard(mutex_);
    awaited = --active_[direct] == 0 && waiting_[0] + waiting_[1] > 0;
  }
  if (!awaited) return;
  ended_.notify_all();
  if (wake_) wake_();
}

FileLink::FileLink(Fd fd, const Attachment& attachment)
    : writable(attachment.writable),
      durable(attachment.durable),
      device(attachment.device),
      inode(attachment.inode) {
  struct stat status;
  if (fstat(fd.get(), &status) != 0) throw core::TransportError("file: fstat: " + last_error());
  if (status.st_dev != attachment.device || status.st_ino != attachment.inode) {
    throw core::TransportError("file: descriptor " + std::to_string(attachment.fd) +
                               " of the owner is another file than announced");
  }
  if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode)) {
    throw core::TransportError("file: is neither a regular file nor a block device");
  }
  if (S_ISREG(status.st_mode) && static_cast<uint64_t>(status.st_size) < attachment.bytes) {
    throw core::TransportError("file: has " + std::to_string(status.st_size) + " bytes, registered were " +
                               std::to_string(attachment.bytes));
  }
  const int access = writable ? O_RDWR : O_RDONLY;
  buffered = reopen(fd.get(), access);
  if (!buffered) throw core::TransportError("file: cannot be opened here: " + last_error());
  if (attachment.direct && (direct = reopen(fd.get(), access | O_DIRECT))) {
    alignment = direct_alignment(direct.get());
    direct_works = true;
  }
}

Outcome io_failure(const RemoteRegion& file, Op op, uint64_t offset, int error) {
  std::string why = error == 0 ? "the file ended: it was truncated after its registration"
                               : std::generic_category().message(error);
  return {.code = StatusCode::err_io,
          .message = std::string(op == Op::write ? "writing" : "reading") + " file region " +
                     std::to_string(file.id) + " at offset " + std::to_string(offset) + ": " + why,
          .reroutable = false};
}

bool refuses_direct(int error) { return error == EINVAL || error == EOPNOTSUPP; }

}  // namespace mori::io::file
