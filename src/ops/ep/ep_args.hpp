// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Argument blocks of the dispatch and combine kernels, and the layout of the memory that they share
// (docs/ep.md has the protocol). Same bytes on the host and on every target.
#pragma once
#include <stdint.h>

#include "src/core/device/world.hpp"

namespace mori {

inline constexpr uint32_t kMaxRanks = 64;  // a token's destinations are one 64-bit mask
inline constexpr uint32_t kMaxTopk = 32;

/// Where a dispatcher's symmetric objects lie: offsets in bytes from the start of the heap.
struct EpShared {
  uint64_t counts;          ///< uint64_t[R][R + kCountsExtra]: row s is written by rank s
  uint64_t counts_signal;   ///< uint64_t[R], entry s is written by rank s, as all signals
  uint64_t rows_signal;     ///< uint64_t[R]
  uint64_t combine_signal;  ///< uint64_t[R]
  uint64_t combine_digest;  ///< uint64_t[R]
  uint64_t credit_signal;   ///< uint64_t[R]
  uint64_t combine_rows;    ///< combine buffer
};

// Words behind the R counts in a row of the matrix.
inline constexpr uint32_t kCountsBuffer = 0;   ///< heap offset of the receive buffer this rank chose
inline constexpr uint32_t kCountsDigest = 1;   ///< digest of the call: must agree between ranks
inline constexpr uint32_t kCountsRefused = 2;  ///< 0, or 1 + the offending expert id as uint32_t
inline constexpr uint32_t kCountsExtra = 3;

/// Parts of a receive buffer, in bytes from its start. The same on every rank.
struct EpReceive {
  uint64_t rows;     ///< [capacity][row_bytes]
  uint64_t ids;      ///< int32 or int64 [capacity][topk]: -1 where the expert is on another rank
  uint64_t weights;  ///< float [capacity][topk]
  uint64_t scales;   ///< [capacity][scale_bytes]
  uint64_t sources;  ///< int64 [capacity]: source rank << 32 | token
};

/// Counters of one dispatcher in this rank's device memory. Arrival counters are 0 between launches.
struct EpLocal {
  uint64_t dispatch_epoch;
  uint64_t combine_epoch;
  uint32_t arrivals[4];  ///< dispatch: count, done; combine: pushed, reduced
  uint64_t refused;      ///< 1 + an expert id out of range, of the running launch
  uint64_t reserved[3];
  // behind it: uint32_t block_counts[kMaxBlocks][R]
};
static_assert(sizeof(EpLocal) == 64);
inline constexpr uint32_t kEpMaxBlocks = 512;

/// The routing handle's device memory, in 8-byte words from its start; python/mori/ep/_results.py reads its
/// head.
struct EpRoutingAddress {
  uint64_t header;     ///< int64_t[4]: tokens (-1: not routed), rows received, epoch of the dispatch, stamp
  uint64_t received;   ///< int64_t[R]: rows from each source rank, C[*][me]
  uint64_t sent;       ///< int64_t[R]: rows to each destination, C[me][*]
  uint64_t returns;    ///< int64_t[R]: where my rows begin in each owner's combine buffer
  uint64_t masks;      ///< uint64_t[max_tokens]: destination ranks of each token
  uint64_t positions;  ///< uint32_t[max_tokens][fan]: row in my combine buffer, ascending destination
};

struct EpDispatchArgs {
  World world;
  EpShared shared;
  EpReceive receive;
  EpRoutingAddress routing;
  uint64_t local;        ///< EpLocal*
  uint64_t expert_rank;  ///< int32_t[num_experts]: which rank holds it
  uint64_t x;            ///< [tokens][row_bytes]
  uint64_t ids;          ///< int32 or int64 [tokens][topk]
  uint64_t weights;      ///< float [tokens][topk], 0 = none
  uint64_t scales;       ///< [tokens][scale_bytes], 0 = none
  uint64_t buffer;       ///< heap offset of the receive buffer chosen for this call
  uint64_t row_bytes;    ///< multiple of 16
  uint64_t capacity;     ///< rows of a receive buffer
  uint64_t digest;       ///< of what must be equal on all ranks
  uint64_t stamp;        ///< of this rank's dispatcher, for the handle
  uint32_t scale_bytes;  ///< per row
  uint32_t tokens;
  uint32_t topk;
  uint32_t id_bytes;  ///< 4 or 8
  uint32_t num_experts;
  uint32_t fan;    ///< min(world_size, topk): row length of positions
  uint32_t large;  ///< not 0: the payload is larger than a cache holds
  uint32_t reserved;
};

struct EpCombineArgs {
  World world;
  EpShared shared;
  EpRoutingAddress routing;
  uint64_t local;        ///< EpLocal*
  uint64_t rows;         ///< [received][hidden], contiguous: what goes back to the owners
  uint64_t out;          ///< [tokens][hidden]
  uint64_t bias;         ///< [tokens][hidden] added first, 0 = none
  uint64_t weights;      ///< float [tokens][topk], 0 = unweighted
  uint64_t ids;          ///< int32 or int64 [tokens][topk], only with weights
  uint64_t expert_rank;  ///< int32_t[num_experts], only with weights
  uint64_t digest;       ///< of what must be equal on all ranks, but for the handle's epoch
  uint64_t stamp;        ///< that the handle must bear
  uint32_t hidden;       ///< elements; the row is a multiple of 16 bytes
  uint32_t tokens;
  uint32_t topk;
  uint32_t id_bytes;
  uint32_t num_experts;
  uint32_t fan;
  uint32_t large;
  uint32_t row_count;  ///< of `rows`: at least as many as were received
};

}  // namespace mori
