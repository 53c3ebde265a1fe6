// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// One job's bytes: what is still to be posted, what is under way, what came back from a broken rail. No I/O
// and no locks (the backend's mutex guards it).
//
// A Range is a run of the job's bytes in the order of its segments whose remote addresses are contiguous: one
// work request. Every byte is in exactly one place: unposted (cursor), under way (a queue's ledger), in limbo
// (its rail broke, its fate is unknown), to be posted again (retry), or confirmed.
#pragma once
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "src/io/backend.hpp"
#include "src/io/backends/rdma/memory.hpp"

namespace mori::io::rdma {

struct Range {
  uint64_t segment = 0;  ///< index of the first
  uint64_t offset = 0;   ///< within it
  uint64_t bytes = 0;
};

/// One local piece of a work request.
struct Piece {
  uint64_t local = 0;  ///< offset in the local memory
  uint64_t bytes = 0;
};

class RdmaRoute;

class Work {
 public:
  Work(JobPtr owner, std::shared_ptr<const LocalMemory> memory, RdmaRoute& to, uint64_t piece_bytes);

  const JobPtr job;
  const std::span<const Segment> segments;
  const std::shared_ptr<const LocalMemory> local;
  RdmaRoute& route;
  const bool write;

  /// Nothing left to post: all of it is confirmed, under way or in limbo.
  bool exhausted() const { return segment_ == segments.size() && retry_.empty(); }
  /// The next work request of at most `limit` bytes and `max_pieces` local pieces; `pieces` gets them.
  /// Only when not exhausted.
  Range carve(uint64_t limit, size_t max_pieces, std::vector<Piece>& pieces);
  uint64_t piece_bytes() const { return piece_bytes_; }
  /// Address in the remote memory, as an offset.
  uint64_t remote_offset(const Range& range) const { return segments[range.segment].remote + range.offset; }
  /// Back to be posted again, before the rest.
  void again(const Range& range) { retry_.push_back(range); }
  /// What is not confirmed, once nothing is under way or in limbo.
  std::vector<Segment> unfinished() const;

  uint64_t under_way = 0;  ///< work requests
  uint64_t limbo = 0;      ///< work requests whose fate is unknown
  uint64_t confirmed_bytes = 0;
  uint64_t told_bytes = 0;  ///< of confirmed_bytes, through Job::progressed
  uint32_t recoveries = 0;
  bool queued = false;   ///< in its link's list of works to post
  bool stopped = false;  ///< post nothing more
  bool cut = false;      ///< its rails were broken off on purpose
  Outcome verdict;       ///< valid once stopped
  Clock::time_point stopped_at{};

 private:
  void append(std::vector<Segment>& out, Range range) const;

  const uint64_t piece_bytes_;
  uint64_t segment_ = 0;
  uint64_t offset_ = 0;
  std::vector<Range> retry_;
};

}  // namespace mori::io::rdma
