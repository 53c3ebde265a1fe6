// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Argument blocks of the dispatch and combine kernels, and the layout of the memory that they share
// (docs/ep.md has the protocol). Same bytes on the host and on every target.
//
// Words used throughout. A *row* is a token's visit to a rank: rows of a rank are numbered by source rank,
// then token, in every layout, and that number indexes ids, weights, sources and routes. A *slot* is a place
// for a payload: in the rank layout the row's number, else a place within an expert's rows.
#pragma once
#include <stdint.h>

#include "src/core/device/world.hpp"

namespace mori {

inline constexpr uint32_t kMaxRanks = 64;  // a token's destinations are one 64-bit mask
inline constexpr uint32_t kMaxTopk = 32;
inline constexpr uint32_t kEpMaxBlocks = 512;
inline constexpr uint32_t kEpMaxChunks = 1024;      // of one source, in one call
inline constexpr uint32_t kEpCachedExperts = 4096;  // whose ranks a block keeps beside it
inline constexpr uint32_t kEpMaxKeys = 1024;        // experts that the expert layouts can sort by

/// Where payloads lie at their destination.
enum class EpPlacement : uint32_t {
  rank = 0,     ///< [capacity]: once for each row, in row order
  expert = 1,   ///< [experts of the rank][expert_capacity]: once for each selection
  grouped = 2,  ///< [slots]: experts one after the other, each begins at a multiple of `alignment`
};

/// What dispatch makes of a payload on its way.
enum class EpFormat : uint32_t { as_is = 0, e4m3fn = 1, e4m3fnuz = 2, e2m1 = 3 };
enum class EpElement : uint32_t { bf16 = 0, fp16 = 1, fp32 = 2 };
enum class EpScale : uint32_t { fp32 = 0, ue8m0 = 1 };

/// As what combine returns rows to other ranks: as they are; as e4m3fn; as e4m3fn with an fp32 scale for each
/// 128 elements behind the codes.
enum class EpWire : uint32_t { as_is = 0, fp8 = 1, fp8_block = 2 };

/// Which half of the work a launch does; both in one launch is the usual call.
inline constexpr uint32_t kEpSend = 1, kEpReceive = 2;

/// Where a dispatcher's symmetric objects lie: offsets in bytes from the start of the heap.
struct EpShared {
  uint64_t announcements;  ///< uint64_t[2][R][words]: half epoch & 1; line s is written by rank s
  uint64_t chunk_flags;    ///< uint64_t[R][kEpMaxChunks]: signals, dispatch; line s is written by rank s
  uint64_t combine_announcements;  ///< uint64_t[2][R]: half epoch & 1; word s is written by rank s
  uint64_t combine_flags;          ///< uint64_t[2][max_tokens * fan]: epoch in which each row came
  uint64_t combine_rows;           ///< combine buffers, one or two
  uint64_t receive;                ///< first receive buffer; the next begin receive_stride further
  uint64_t receive_stride;
};

/// One word of an announcement says its epoch and its value, so it needs no signal behind it. The tag is
/// never 0: memory that was never written says nothing.
inline constexpr uint64_t kEpTags = 0xffffffffu;

// Words of an announcement, in front of C[me][*] (a count for each rank, then, in the expert layouts, for
// each expert in key order).
inline constexpr uint32_t kAnnounceDigest = 0;   ///< digest of the call: must agree between ranks
inline constexpr uint32_t kAnnounceBuffer = 1;   ///< receive buffer this rank chose
inline constexpr uint32_t kAnnounceChunks = 2;   ///< chunks in which its rows come
inline constexpr uint32_t kAnnounceRefused = 3;  ///< 1 if an expert id is out of range
inline constexpr uint32_t kAnnounceId = 4;       ///< that id, its lower half
inline constexpr uint32_t kAnnounceCounts = 5;

/// Parts of a receive buffer, in bytes from its start. The same on every rank.
struct EpReceive {
  uint64_t rows;     ///< [slots][row_bytes]
  uint64_t ids;      ///< int32 or int64 [capacity][topk]: -1 where the expert is on another rank
  uint64_t weights;  ///< float [capacity][topk]
  uint64_t scales;   ///< of each slot, row- or column-major (EpScales)
  uint64_t sources;  ///< int64 [capacity]: source rank << 32 | token
  uint64_t routes;   ///< int32 [capacity][topk]: slot of each local selection, -1 elsewhere; expert layouts
  /// uint64_t[R][kEpMaxChunks]: what a source's chunk brings, valid behind its flag: first row within those
  /// of the source << 32 | rows; expert layouts
  uint64_t ranges;
};

/// Counters of one dispatcher in this rank's device memory. Arrival counters are 0 between launches.
struct EpLocal {
  uint64_t dispatch_epoch;
  uint64_t combine_epoch;
  uint32_t arrivals[3];          ///< dispatch: started, -
  uint32_t combine_started;      ///< blocks of the running combine that have read the epoch
  uint64_t combine_tickets[2];   ///< next share of the sum, in calls of even and of odd epochs
  uint64_t dispatch_tickets[2];  ///< next chunk to be spread, likewise; layouts by expert
};
static_assert(sizeof(EpLocal) == 64);

/// Behind EpLocal: uint64_t[kEpMaxBlocks][R + kEpCountWords], tagged words. What a sender block counted in
/// its tokens, for the other blocks of its launch: a row count for each rank, then:
inline constexpr uint32_t kEpCountRefused = 0;  ///< 1 if an expert id is out of range
inline constexpr uint32_t kEpCountId = 1;       ///< that id, its lower half
inline constexpr uint32_t kEpCountWords = 2;

/// The routing handle's device memory: addresses. python/mori/ep/_results.py reads it by the offsets that
/// routing_address(0, config) gives.
struct EpRoutingAddress {
  uint64_t header;     ///< int64_t[4]: tokens (-1: not routed), rows received, epoch of the dispatch, stamp
  uint64_t received;   ///< int64_t[R]: rows from each source rank, C[*][me]
  uint64_t sent;       ///< int64_t[R]: rows to each destination, C[me][*]
  uint64_t returns;    ///< int64_t[R]: where my rows begin in each owner's combine buffer
  uint64_t chunks;     ///< int64_t[R]: chunks in which each source's rows come
  uint64_t buffer;     ///< int64_t[1]: receive buffer of the dispatch
  uint64_t masks;      ///< uint64_t[max_tokens]: destination ranks of each token
  uint64_t positions;  ///< uint32_t[max_tokens][fan]: row in my combine buffer, ascending destination
  uint64_t counts;     ///< int32_t[experts_per_rank]: rows of each of my experts; expert layouts
  uint64_t offsets;    ///< int32_t[experts_per_rank + 1]: first slot of each, then slots used; expert layouts
  uint64_t routes;     ///< int32_t[capacity][topk]: as EpReceive::routes; expert layouts
};

/// Where experts live. Keys number the experts by rank, then by their place on it.
struct EpExperts {
  uint64_t rank;   ///< int32_t[num_experts]: which rank holds it
  uint64_t key;    ///< int32_t[num_experts]
  uint64_t first;  ///< int32_t[R + 1]: first key of each rank
};

/// Scales of a received slot: element `column` of slot s lies at
/// s / block * block_bytes + s % block * row_bytes + column * column_bytes.
struct EpScales {
  uint32_t bytes;         ///< of all scales of a row, 0 = none
  uint32_t columns;       ///< how many there are, each of bytes / columns bytes
  uint32_t block;         ///< slots that form one matrix
  uint32_t row_bytes;     ///< from slot to slot
  uint32_t column_bytes;  ///< from column to column: bytes / columns where row-major
  uint32_t reserved;
  uint64_t block_bytes;
};

/// Conversion of a payload in the kernel.
struct EpConvert {
  EpFormat format;    ///< as_is: x has row_bytes a token, scales come from the caller
  EpElement element;  ///< of x otherwise
  EpScale scale;
  uint32_t group;   ///< elements that share a scale: 128 or hidden for fp8, 32 for e2m1
  uint32_t hidden;  ///< elements of a token
  uint32_t reserved;
};

struct EpDispatchArgs {
  World world;
  EpShared shared;
  EpReceive receive;
  EpRoutingAddress routing;
  EpExperts experts;
  EpScales scale;
  EpConvert convert;
  uint64_t local;             ///< EpLocal*
  uint64_t x;                 ///< [tokens][row_bytes], or of the type to convert from
  uint64_t ids;               ///< int32 or int64 [tokens][topk]
  uint64_t weights;           ///< float [tokens][topk], 0 = none
  uint64_t scales;            ///< [tokens][scale.bytes], 0 = none
  uint64_t active;            ///< uint64_t[1]: bit of each rank that takes part, 0 = all do
  uint64_t load;              ///< uint64_t[num_experts] += selections of my tokens, 0 = not counted
  uint64_t trace;             ///< uint64_t[kEpMaxBlocks][kEpTraceWords], 0 = not traced
  uint64_t row_bytes;         ///< of a received payload, multiple of 16
  uint64_t capacity;          ///< rows of a receive buffer
  uint64_t slots;             ///< payloads of a receive buffer
  uint64_t stamp;             ///< of this rank's dispatcher, for the handle
  uint32_t digest;            ///< of what must be equal on all ranks
  EpPlacement placement;      ///< see there
  uint32_t experts_per_rank;  ///< at most; expert layouts
  uint32_t expert_capacity;   ///< slots of an expert in the expert layout
  uint32_t alignment;         ///< of an expert's first slot in the grouped layout
  uint32_t zero_padding;      ///< not 0: zeros behind an expert's rows, up to the next one's; grouped layout
  uint32_t phases;            ///< kEpSend | kEpReceive
  uint32_t senders;           ///< blocks that send; the others make copies in the expert layouts. 0 < senders
  uint32_t chunks;            ///< in which my tokens go: a multiple of senders
  uint32_t batch;             ///< tokens that a block plans at a time
  uint32_t buffer;            ///< receive buffer chosen for this call
  uint32_t tokens;
  uint32_t topk;
  uint32_t id_bytes;  ///< 4 or 8
  uint32_t num_experts;
  uint32_t fan;      ///< min(world_size, topk): row length of positions
  uint32_t large;    ///< not 0: the payload is larger than a cache holds
  uint32_t tickets;  ///< not 0: chunks are spread by whoever comes first, senders too when they are done
};

/// Times of a block in clock ticks, in this order; 0 = the block did not come there.
enum EpTrace : uint32_t {
  kTraceStart = 0,
  kTraceCounted = 1,    ///< dispatch: my counts are known and announced; combine: all ranks have announced
  kTracePlanned = 2,    ///< dispatch: every rank's counts are known; combine: my routes are
  kTraceSent = 3,       ///< dispatch: rows written; combine: rows returned
  kTracePublished = 4,  ///< the flags of what was written are raised
  kTraceReceived = 5,   ///< everything I wait for has come
  kTraceDone = 6,       ///< copies made or sums written
  kEpTraceWords = 8,
};

struct EpCombineArgs {
  World world;
  EpShared shared;
  EpRoutingAddress routing;
  uint64_t local;        ///< EpLocal*
  uint64_t rows;         ///< [received or slots][hidden], contiguous: what goes back to the owners
  uint64_t out;          ///< [tokens][hidden]
  uint64_t bias;         ///< [tokens][hidden] added first, 0 = none
  uint64_t weights;      ///< float [tokens][topk], of the tokens' owner, 0 = unweighted
  uint64_t ids;          ///< int32 or int64 [tokens][topk], only with weights
  uint64_t expert_rank;  ///< int32_t[num_experts], only with weights
  uint64_t row_weights;  ///< float [capacity][topk], of the received rows: layouts by expert, 0 = unweighted
  uint64_t active;       ///< uint64_t[1]: bit of each rank that takes part, 0 = all do
  uint64_t trace;        ///< uint64_t[kEpMaxBlocks][kEpTraceWords], 0 = not traced
  uint64_t digest;       ///< of what must be equal on all ranks, but for the handle's epoch
  uint64_t stamp;        ///< that the handle must bear
  uint64_t second_buffer;  ///< bytes to the combine buffer of odd epochs, 0 = there is one buffer
  uint64_t second_flags;   ///< bytes to the row flags of odd epochs
  EpPlacement placement;   ///< of `rows`
  uint32_t hidden;         ///< elements; the row is a multiple of 16 bytes
  uint32_t tokens;
  uint32_t topk;
  uint32_t id_bytes;
  uint32_t num_experts;
  uint32_t fan;
  uint32_t large;         ///< not 0: the payload is larger than a cache holds
  uint32_t row_count;     ///< of `rows`: at least as many as were received
  uint32_t phases;        ///< kEpSend | kEpReceive
  uint32_t senders;       ///< blocks that return rows before they sum. 0 < senders
  uint32_t sender_warps;  ///< warps that do in each of them, one unit each
  uint32_t by_block;      ///< not 0: all warps of a sender return a unit together
  uint32_t unit;          ///< rows that return at a time
  uint32_t parts;         ///< in which a token's row is summed
  uint32_t tickets;       ///< not 0: shares of the sum go to whoever comes first, else in turn
  uint32_t terms;         ///< of a warp's list: 1 + fan, in the layouts by expert + topk
  EpWire wire;            ///< as what rows come back
};

}  // namespace mori
