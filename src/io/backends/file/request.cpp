// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Arithmetic of offsets; nothing here does I/O.
#include "src/io/backends/file/request.hpp"

#include <algorithm>
#include <cstring>

namespace mori::io::file {

void Request::point_at(uint8_t* local) {
  memory.clear();
  for (const Segment& piece : pieces) memory.push_back({local + piece.local, piece.bytes});
}

void Request::drop_front(uint64_t moved) {
  offset += moved;
  bytes -= moved;
  direct = false;
  aligned = true;
  size_t whole = 0;
  while (whole < pieces.size() && moved >= pieces[whole].bytes) moved -= pieces[whole++].bytes;
  pieces.erase(pieces.begin(), pieces.begin() + static_cast<ptrdiff_t>(whole));
  if (moved > 0) {
    Segment& first = pieces.front();
    first = {first.local + moved, first.remote + moved, first.bytes - moved};
  }
}

void Request::gather(uint8_t* bounce, const uint8_t* local) const {
  for (const Segment& piece : pieces) {
    memcpy(bounce + (piece.remote - offset), local + piece.local, piece.bytes);
  }
}

void Request::scatter(const uint8_t* bounce, uint8_t* local) const {
  for (const Segment& piece : pieces) {
    memcpy(local + piece.local, bounce + (piece.remote - offset), piece.bytes);
  }
}

/// Bytes from here on without a gap in the file, at most `most` and kRequestPieces pieces.
uint64_t Cutter::run(uint64_t most) const {
  uint64_t bytes = segments_[next_].bytes - offset_;
  for (size_t i = next_ + 1; i < segments_.size() && i - next_ < kRequestPieces && bytes < most; ++i) {
    if (segments_[i].remote != segments_[i - 1].remote + segments_[i - 1].bytes) break;
    bytes += segments_[i].bytes;
  }
  return std::min(bytes, most);
}

void Cutter::take(uint64_t bytes, std::vector<Segment>& pieces) {
  while (bytes > 0) {
    const Segment& whole = segments_[next_];
    const uint64_t part = std::min(bytes, whole.bytes - offset_);
    pieces.push_back({whole.local + offset_, whole.remote + offset_, part});
    bytes -= part;
    offset_ += part;
    if (offset_ == whole.bytes) {
      ++next_;
      offset_ = 0;
    }
  }
}

void Cutter::next(Request& request) {
  request.pieces.clear();
  request.memory.clear();
  request.offset = segments_[next_].remote + offset_;
  request.direct = false;
  request.aligned = true;
  request.bytes = run(rules_.block_bytes);
  if (rules_.direct) {
    const uint64_t block = rules_.alignment.offset;
    const uint64_t into = request.offset % block;
    if (into != 0) {
      request.bytes = std::min(request.bytes, block - into);
    } else if (request.bytes >= block) {
      request.bytes -= request.bytes % block;
      request.direct = true;
    }
  }
  take(request.bytes, request.pieces);
  if (!request.direct) return;
  for (const Segment& piece : request.pieces) {
    const bool fits = (local_address_ + piece.local) % rules_.alignment.memory == 0 &&
                      (request.pieces.size() == 1 || piece.bytes % rules_.alignment.offset == 0);
    request.aligned = request.aligned && fits;
  }
}

void Cutter::abandon(std::vector<Segment>& rest) {
  for (; !at_end(); ++next_, offset_ = 0) {
    const Segment& s = segments_[next_];
    rest.push_back({s.local + offset_, s.remote + offset_, s.bytes - offset_});
  }
}

}  // namespace mori::io::file
