// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Opening a file to be registered, and reading and writing it without a backend (for who serves a region to
// another host). What the user wished travels in the descriptor's own flags: O_DIRECT and O_DSYNC.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "src/io/fd.hpp"

namespace mori::io::file {

struct Opened {
  Fd fd;
  std::string path;  ///< absolute
  uint64_t bytes = 0;
};

/// `bytes` is how much of the file is registered; without it, all that it has. A writable file is created and
/// enlarged (with its room reserved) as needed. `direct`: past the page cache; without it, where the file
/// system allows. `durable`: a write counts as done when it is on the medium.
/// Throws core::ConfigError for the arguments, core::CapacityError without room, core::TransportError.
Opened open_file(const std::string& path, std::optional<uint64_t> bytes, bool writable,
                 std::optional<bool> direct, bool durable);

/// What O_DIRECT demands of this file.
struct Alignment {
  uint64_t offset = 4096;  ///< of offsets and sizes
  uint64_t memory = 4096;
};
Alignment direct_alignment(int fd);

/// Whole ranges, at any alignment (staged where the descriptor has O_DIRECT). Throws core::TransportError
/// that names the offset: end of file, no room, the device's error.
void read_at(int fd, uint64_t offset, std::span<uint8_t> to);
void write_at(int fd, uint64_t offset, std::span<const uint8_t> from);

}  // namespace mori::io::file
