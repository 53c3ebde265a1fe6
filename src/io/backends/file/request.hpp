// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Cuts a job's segments into what one read or write call does: ranges of the file without a gap, whose memory
// may lie scattered. Where the file is open with O_DIRECT, the aligned middle of a range goes past the page
// cache and its ends do not:
//
//   file     |----block----|----block----|----block----|
//   range          [xxxxxxx|xxxxxxxxxxxxx|xxx]
//                   buffered    direct    buffered
//
// Memory that a direct request cannot use (its own alignment) goes through an aligned bounce buffer. Writing
// unaligned ends directly would mean to read, change and write whole blocks, which loses what others write
// into the same block meanwhile.
#pragma once
#include <sys/uio.h>

#include <cstdint>
#include <span>
#include <vector>

#include "src/io/backends/file/open_file.hpp"
#include "src/io/types.hpp"

namespace mori::io::file {

inline constexpr size_t kRequestPieces = 256;

struct Request {
  std::vector<Segment> pieces;  ///< touching each other in the file
  std::vector<iovec> memory;    ///< of the pieces; or one bounce buffer
  uint64_t offset = 0;          ///< in the file
  uint64_t bytes = 0;
  bool direct = false;
  bool aligned = true;  ///< false: a direct request whose memory needs a bounce buffer

  void point_at(uint8_t* local);    ///< sets `memory` to the pieces
  void drop_front(uint64_t bytes);  ///< these were moved; the rest is buffered from here on
  void gather(uint8_t* bounce, const uint8_t* local) const;
  void scatter(const uint8_t* bounce, uint8_t* local) const;
};

class Cutter {
 public:
  struct Rules {
    uint64_t block_bytes;  ///< most of one request; a multiple of the alignment
    bool direct = false;   ///< whether the file is open with O_DIRECT
    Alignment alignment{};
  };
  Cutter(std::span<const Segment> segments, uint64_t local_address, Rules rules)
      : segments_(segments), local_address_(local_address), rules_(rules) {}

  bool at_end() const { return next_ == segments_.size(); }
  /// Fills `request`, keeping its vectors' room. Not at the end.
  void next(Request& request);
  /// Appends what was not handed out, which is then over.
  void abandon(std::vector<Segment>& rest);

 private:
  uint64_t run(uint64_t most) const;
  void take(uint64_t bytes, std::vector<Segment>& pieces);

  std::span<const Segment> segments_;
  uint64_t local_address_;
  Rules rules_;
  size_t next_ = 0;
  uint64_t offset_ = 0;  ///< into segments_[next_]
};

}  // namespace mori::io::file
