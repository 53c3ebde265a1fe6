// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Memory that two processes can map: finding the file behind a registered range (owner), saying where it is
// (Attachment), and mapping it (initiator).
//
// Only files whose size is sealed against shrinking are shared: whoever maps another file dies of SIGBUS when
// its owner truncates it, and no check can exclude that.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "src/io/backends/shm/process_vm.hpp"
#include "src/io/fd.hpp"

namespace mori::io::shm {

/// The file behind a shared mapping of this process.
struct Backing {
  Fd fd;
  uint64_t device = 0;  ///< st_dev
  uint64_t inode = 0;
  uint64_t offset = 0;  ///< of the range's first byte in the file
  bool writable = false;
};

/// The sealed file that the whole range [address, address + bytes) is mapped from, or nothing, with the
/// reason.
std::optional<Backing> find_backing(uint64_t address, uint64_t bytes, std::string* why);

/// What the owner gives to an initiator; of one kernel, so in the machine's own byte order.
struct Attachment {
  uint64_t region = 0;
  uint64_t address = 0;
  uint64_t bytes = 0;
  uint64_t probe_address = 0;
  Probe probe{};
  int32_t fd = -1;  ///< number in the owner's process; -1: the memory is not a sealed shared mapping
  bool writable = true;
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t offset = 0;
  std::string why{};  ///< without fd: the reason

  std::string pack() const;
  static std::optional<Attachment> unpack(
      std::string_view packed);  ///< nothing: not ours, or another version
};

/// A window of a peer's file in this process. Not inherited by forked children.
class Mapping {
 public:
  /// Checks identity, owner, size and seals of `fd` against the attachment. Throws core::TransportError.
  Mapping(const Fd& fd, const Attachment& attachment);
  ~Mapping();
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  uint8_t* data() const { return data_; }  ///< of the region's first byte
  bool writable() const { return writable_; }

 private:
  void* base_ = nullptr;
  uint64_t mapped_bytes_ = 0;
  uint8_t* data_ = nullptr;
  bool writable_ = false;
};

}  // namespace mori::io::shm
