// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// /proc/self/maps, seals, mmap.
#include "src/io/backends/shm/mapping.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>
#include <system_error>

#include "src/core/errors.hpp"

namespace mori::io::shm {
namespace {

std::string last_error() { return std::generic_category().message(errno); }

struct Vma {
  uint64_t start, end, offset, device, inode;
  bool writable, shared;
};

std::optional<Vma> parse_vma(const char* line) {
  Vma vma{};
  char flags[5] = {};
  unsigned major_number = 0, minor_number = 0;
  if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %" SCNu64, &vma.start, &vma.end, flags,
             &vma.offset, &major_number, &minor_number, &vma.inode) != 7) {
    return std::nullopt;
  }
  vma.device = makedev(major_number, minor_number);
  vma.writable = flags[1] == 'w';
  vma.shared = flags[3] == 's';
  return vma;
}

bool is(const Fd& fd, uint64_t device, uint64_t inode) {
  struct stat status;
  return fd && fstat(fd.get(), &status) == 0 && status.st_dev == device && status.st_ino == inode;
}

/// A descriptor of our own for the file: from one that the process has open, else through the mapping, which
/// takes a privilege.
Fd find_fd(const Vma& vma) {
  if (const std::unique_ptr<DIR, int (*)(DIR*)> folder(opendir("/proc/self/fd"), closedir);
      folder != nullptr) {
    while (const dirent* entry = readdir(folder.get())) {
      struct stat status;
      if (fstatat(dirfd(folder.get()), entry->d_name, &status, 0) != 0) continue;
      if (status.st_dev != vma.device || status.st_ino != vma.inode) continue;
      Fd fd(fcntl(atoi(entry->d_name), F_DUPFD_CLOEXEC, 0));
      if (is(fd, vma.device, vma.inode)) return fd;  // it may have been closed and reused meanwhile
    }
  }
  char path[64];
  snprintf(path, sizeof path, "/proc/self/map_files/%" PRIx64 "-%" PRIx64, vma.start, vma.end);
  Fd fd(open(path, (vma.writable ? O_RDWR : O_RDONLY) | O_CLOEXEC));
  if (is(fd, vma.device, vma.inode)) return fd;
  return Fd();
}

bool size_is_sealed(int fd) {
  const int seals = fcntl(fd, F_GET_SEALS);
  return seals >= 0 && (seals & F_SEAL_SHRINK) != 0;
}

constexpr char kMagic[8] = {'m', 'o', 'r', 'i', 's', 'h', 'm', '1'};

struct Packed {
  char magic[8];
  uint64_t region, address, bytes, probe_address;
  Probe probe;
  int32_t fd;
  uint32_t writable;
  uint64_t device, inode, offset;
};
static_assert(sizeof(Packed) == 88 && std::is_trivially_copyable_v<Packed>);

}  // namespace

std::optional<Backing> find_backing(uint64_t address, uint64_t bytes, std::string* why) {
  std::ifstream maps("/proc/self/maps");
  std::string line;
  std::optional<Vma> first;
  uint64_t covered = address;  // up to here the range is one stretch of one file
  while (covered < address + bytes && std::getline(maps, line)) {
    const std::optional<Vma> vma = parse_vma(line.c_str());
    if (!vma || vma->end <= covered) continue;
    if (vma->start > covered || !vma->shared) break;
    if (!first) {
      first = vma;
    } else if (vma->device != first->device || vma->inode != first->inode ||
               vma->offset - first->offset != vma->start - first->start) {
      break;
    }
    first->writable = first->writable && vma->writable;
    covered = vma->end;
  }
  if (covered < address + bytes) {
    *why = "the memory is not one shared mapping (mori.io.empty and engine.allocate give such memory)";
    return std::nullopt;
  }
  Backing backing{.fd = find_fd(*first),
                  .device = first->device,
                  .inode = first->inode,
                  .offset = first->offset + (address - first->start),
                  .writable = first->writable};
  if (!backing.fd) {
    *why = "the file behind the shared mapping is not open in this process";
    return std::nullopt;
  }
  if (!size_is_sealed(backing.fd.get())) {
    *why = "the shared memory's size is not sealed (F_SEAL_SHRINK): truncating it would kill whoever maps it";
    return std::nullopt;
  }
  return backing;
}

std::string Attachment::pack() const {
  Packed packed{.magic = {},
                .region = region,
                .address = address,
                .bytes = bytes,
                .probe_address = probe_address,
                .probe = probe,
                .fd = fd,
                .writable = writable,
                .device = device,
                .inode = inode,
                .offset = offset};
  memcpy(packed.magic, kMagic, sizeof kMagic);
  return std::string(reinterpret_cast<const char*>(&packed), sizeof packed) + why;
}

std::optional<Attachment> Attachment::unpack(std::string_view text) {
  Packed packed;
  if (text.size() < sizeof packed || memcmp(text.data(), kMagic, sizeof kMagic) != 0) return std::nullopt;
  memcpy(&packed, text.data(), sizeof packed);
  return Attachment{.region = packed.region,
                    .address = packed.address,
                    .bytes = packed.bytes,
                    .probe_address = packed.probe_address,
                    .probe = packed.probe,
                    .fd = packed.fd,
                    .writable = packed.writable != 0,
                    .device = packed.device,
                    .inode = packed.inode,
                    .offset = packed.offset,
                    .why = std::string(text.substr(sizeof packed))};
}

Mapping::Mapping(const Fd& fd, const Attachment& attachment) {
  struct stat status;
  if (fstat(fd.get(), &status) != 0) throw core::TransportError("shared memory: fstat: " + last_error());
  if (status.st_dev != attachment.device || status.st_ino != attachment.inode) {
    throw core::TransportError("shared memory: descriptor " + std::to_string(attachment.fd) +
                               " of the peer is another file than announced");
  }
  if (status.st_uid != geteuid()) {
    throw core::TransportError("shared memory: belongs to user " + std::to_string(status.st_uid) +
                               ", this process runs as " + std::to_string(geteuid()));
  }
  const uint64_t size = static_cast<uint64_t>(std::max<off_t>(status.st_size, 0));
  if (attachment.offset > size || attachment.bytes > size - attachment.offset) {
    throw core::TransportError("shared memory: has " + std::to_string(size) + " bytes, announced were " +
                               std::to_string(attachment.bytes) + " from " +
                               std::to_string(attachment.offset));
  }
  if (!size_is_sealed(fd.get())) throw core::TransportError("shared memory: its size is not sealed");
  writable_ = attachment.writable && (fcntl(fd.get(), F_GETFL) & O_ACCMODE) == O_RDWR;

  // Files of huge pages are mapped from whole ones; they say so in st_blksize.
  const uint64_t page = std::max<uint64_t>(static_cast<uint64_t>(sysconf(_SC_PAGESIZE)),
                                           static_cast<uint64_t>(status.st_blksize));
  const uint64_t before = attachment.offset % page;
  mapped_bytes_ = (before + attachment.bytes + page - 1) / page * page;
  base_ = mmap(nullptr, mapped_bytes_, PROT_READ | (writable_ ? PROT_WRITE : 0), MAP_SHARED, fd.get(),
               static_cast<off_t>(attachment.offset - before));
  if (base_ == MAP_FAILED) {
    throw core::TransportError("shared memory: mmap of " + std::to_string(mapped_bytes_) +
                               " bytes: " + last_error());
  }
  madvise(base_, mapped_bytes_, MADV_DONTFORK);
  data_ = static_cast<uint8_t*>(base_) + before;
}

Mapping::~Mapping() { munmap(base_, mapped_bytes_); }

}  // namespace mori::io::shm
