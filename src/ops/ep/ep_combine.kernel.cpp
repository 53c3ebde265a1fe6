// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Combine: every rank returns the rows it received, and each owner sums what came back for its tokens.
// Phases as in docs/ep.md:
//   1 credit   every block waits until each peer has finished the previous combine
//   2 return   rows of one owner are contiguous here and land contiguously in its combine buffer
//   3 publish  the last block signals every rank
//   4 receive  every block waits for every rank's signal
//   5 reduce   fp32 sum in ascending rank order, from the bias; weights if asked; rounded once
//   6 credit   the last block tells every rank that the buffer is free
#include "src/core/device/numeric.hpp"
#include "src/ops/ep/ep_device.hpp"

namespace mori {
namespace {
inline namespace MORI_TARGET_NAMESPACE {

struct CombineBlock {
  uint32_t* flag;
  uint32_t* mismatched;  // 0, or 1 + the first peer with another digest
  uint64_t* ends;        // rows received from ranks 0..s, inclusive
  uint64_t* owner_rows;  // where my rows begin in each owner's combine buffer, as mapped here

  MORI_DEVICE explicit CombineBlock(uint32_t ranks) {
    uint64_t* words = shared_memory<uint64_t>();
    flag = reinterpret_cast<uint32_t*>(words);
    mismatched = flag + 1;
    ends = words + 1;
    owner_rows = ends + ranks;
  }
};

MORI_DEVICE void load_routes(const EpCombineArgs& a, const CombineBlock& block, uint64_t row_bytes) {
  const uint32_t ranks = a.world.world_size;
  const int64_t* received = global<const int64_t>(a.routing.received);
  const int64_t* returns = global<const int64_t>(a.routing.returns);
  for (uint32_t s = block_lane(); s < ranks; s += block_lanes()) {
    uint64_t end = 0;
    for (uint32_t i = 0; i <= s; ++i) end += uint64_t(received[i]);
    block.ends[s] = end;
    block.owner_rows[s] =
        global<const uint64_t>(a.world.bases)[s] + a.shared.combine_rows + uint64_t(returns[s]) * row_bytes;
  }
  sync_block();
}

MORI_DEVICE void return_rows(const EpCombineArgs& a, const CombineBlock& block, uint64_t row_bytes) {
  const uint32_t ranks = a.world.world_size;
  const uint64_t total = block.ends[ranks - 1];
  const uint64_t first = block.ends[a.world.rank] % (total == 0 ? 1 : total);  // begin behind my own rows
  for (uint64_t i = global_warp(); i < total; i += grid_warps()) {
    const uint64_t row = first + i < total ? first + i : first + i - total;
    uint32_t owner = 0;
    while (row >= block.ends[owner]) ++owner;
    const uint64_t begin = owner == 0 ? 0 : block.ends[owner - 1];
    copy_row(a.large != 0, global<char>(block.owner_rows[owner]) + (row - begin) * row_bytes,
             global<const char>(a.rows) + row * row_bytes, row_bytes);
  }
  finish_large_copies();
}

/// Whether the handle is of a dispatch that went well, with as many tokens and no more rows, of a dispatcher
/// like this.
MORI_DEVICE bool has_routes(const EpCombineArgs& a) {
  const int64_t* header = global<const int64_t>(a.routing.header);
  return header[0] == int64_t(a.tokens) && header[1] <= int64_t(a.row_count) &&
         uint64_t(header[3]) == a.stamp;
}

/// What must be equal on all ranks: the shape of rows, and of which dispatch they are. A rank without routes
/// has nothing to return, so that its peers have nothing to sum.
MORI_DEVICE uint64_t digest_of(const EpCombineArgs& a, bool routed) {
  const uint64_t epoch = uint64_t(global<const int64_t>(a.routing.header)[2]);
  return routed ? a.digest ^ epoch * 0x9e3779b97f4a7c15u : 0;
}

/// Digests that the peers sent with their signals. Callers: the block, after it saw all signals.
MORI_DEVICE bool same_digests(const EpCombineArgs& a, const CombineBlock& block, uint64_t digest) {
  const uint64_t* digests = peer_pointer<const uint64_t>(a.world, a.world.rank, a.shared.combine_digest);
  if (block_lane() == 0) {
    *block.mismatched = 0;
    for (uint32_t s = a.world.world_size; s-- > 0;) {
      if (digests[s] != digest) *block.mismatched = 1 + s;
    }
  }
  sync_block();
  return *block.mismatched == 0;
}

/// Sum of the token's weights whose experts live on `rank`, in top-k order.
MORI_DEVICE float rank_weight(const EpCombineArgs& a, uint64_t token, uint32_t rank) {
  float sum = 0;
  for (uint32_t k = 0; k < a.topk; ++k) {
    const int64_t id = load_id(a.ids, a.id_bytes, token * a.topk + k);
    // The caller's ids, read again: they may have changed since dispatch checked them.
    if (id < 0 || id >= int64_t(a.num_experts)) continue;
    if (uint32_t(global<const int32_t>(a.expert_rank)[id]) == rank) {
      sum += global<const float>(a.weights)[token * a.topk + k];
    }
  }
  return sum;
}

/// What one token's reduction reads and writes.
template <class T>
struct TokenRows {
  const T* returned;  // my combine buffer
  const T* bias;      // null = none
  T* out;
  const uint32_t* positions;  // of the token's rows in the combine buffer, ascending rank
  uint64_t mask;              // ranks they came from
  uint64_t token;
};

/// Adds kPacks packs of each lane, kWarpSize apart, beginning with pack `start`: so many loads are in flight.
template <bool kWeighted, uint32_t kPacks, class T>
MORI_DEVICE void add_row(float (&sum)[kPacks][Pack<T>::kElements], const T* row, uint32_t start,
                         float weight) {
  Pack<T> packs[kPacks];
  MORI_UNROLL
  for (uint32_t u = 0; u < kPacks; ++u) {
    packs[u] = load_pack(row + uint64_t(start + u * kWarpSize) * Pack<T>::kElements);
  }
  MORI_UNROLL
  for (uint32_t u = 0; u < kPacks; ++u) {
    MORI_UNROLL
    for (uint32_t e = 0; e < Pack<T>::kElements; ++e) {
      const float value = to_float(packs[u].element[e]);
      sum[u][e] += kWeighted ? multiply(weight, value) : value;
    }
  }
}

template <uint32_t kPacks, class T>
MORI_DEVICE void reduce_packs(const EpCombineArgs& a, const TokenRows<T>& t, uint32_t start) {
  constexpr uint32_t kElements = Pack<T>::kElements;
  float sum[kPacks][kElements] = {};
  if (t.bias != nullptr) add_row<false, kPacks>(sum, t.bias, start, 0);
  uint32_t index = 0;
  for (uint64_t left = t.mask; left != 0; left &= left - 1, ++index) {
    const T* row = t.returned + uint64_t(t.positions[index]) * a.hidden;
    if (a.weights == 0) {
      add_row<false, kPacks>(sum, row, start, 0);
    } else {
      add_row<true, kPacks>(sum, row, start, rank_weight(a, t.token, first_bit(left)));
    }
  }
  MORI_UNROLL
  for (uint32_t u = 0; u < kPacks; ++u) {
    Pack<T> rounded;
    MORI_UNROLL
    for (uint32_t e = 0; e < kElements; ++e) from_float(sum[u][e], rounded.element[e]);
    store_pack(t.out + uint64_t(start + u * kWarpSize) * kElements, rounded);
  }
}

/// One part of a token's row. Callers: the warp; `first` and `last` count packs of 16 bytes.
template <class T>
MORI_DEVICE void reduce_part(const EpCombineArgs& a, uint64_t token, uint32_t first, uint32_t last) {
  constexpr uint32_t kPacks = 4;
  const TokenRows<T> rows{peer_pointer<const T>(a.world, a.world.rank, a.shared.combine_rows),
                          a.bias == 0 ? nullptr : global<const T>(a.bias) + token * a.hidden,
                          global<T>(a.out) + token * a.hidden,
                          global<const uint32_t>(a.routing.positions) + token * a.fan,
                          global<const uint64_t>(a.routing.masks)[token],
                          token};
  uint32_t start = first + lane_id();
  for (; start + (kPacks - 1) * kWarpSize < last; start += kPacks * kWarpSize)
    reduce_packs<kPacks>(a, rows, start);
  for (; start < last; start += kWarpSize) reduce_packs<1>(a, rows, start);
}

template <class T>
MORI_DEVICE void reduce(const EpCombineArgs& a) {
  if (a.tokens == 0) return;
  const uint32_t packs = a.hidden / Pack<T>::kElements;
  // Few tokens: several warps share a row.
  const uint32_t most = (packs + kWarpSize - 1) / kWarpSize;
  const uint32_t wanted = (grid_warps() + a.tokens - 1) / a.tokens;
  const uint32_t parts = wanted < most ? wanted : most;
  const uint32_t each = (most + parts - 1) / parts * kWarpSize;
  for (uint64_t i = global_warp(); i < uint64_t(a.tokens) * parts; i += grid_warps()) {
    const uint32_t first = uint32_t(i % parts) * each;
    if (first < packs) reduce_part<T>(a, i / parts, first, first + each < packs ? first + each : packs);
  }
}

template <class T>
MORI_DEVICE void combine(const EpCombineArgs& a) {
  EpLocal* local = global<EpLocal>(a.local);
  const CombineBlock block(a.world.world_size);
  const uint64_t epoch = load_relaxed<Scope::device>(&local->combine_epoch) + 1;
  const uint64_t row_bytes = uint64_t(a.hidden) * sizeof(T);

  // Ranks without routes, say after a refused dispatch, meet the others here only to stay in step.
  const bool routed = has_routes(a);
  const uint64_t digest = digest_of(a, routed);

  if (!wait_all(Block{block.flag}, a.world, a.shared.credit_signal, epoch - 1, Wait::combine_credit)) return;
  if (routed) {
    load_routes(a, block, row_bytes);
    return_rows(a, block, row_bytes);
  }
  if (last_block<Scope::system>(&local->arrivals[2], block.flag)) {
    for (uint32_t peer = block_lane(); peer < a.world.world_size; peer += block_lanes()) {
      store_relaxed<Scope::system>(
          peer_pointer<uint64_t>(a.world, peer, a.shared.combine_digest) + a.world.rank, digest);
    }
    sync_block();
    signal_all(Block{block.flag}, a.world, a.shared.combine_signal, epoch);
  }
  if (!wait_all(Block{block.flag}, a.world, a.shared.combine_signal, epoch, Wait::combine_rows)) return;
  const bool agreed = same_digests(a, block, digest);
  if (agreed && routed) reduce<T>(a);
  if (!last_block<Scope::system>(&local->arrivals[3], block.flag)) return;
  signal_all(Block{block.flag}, a.world, a.shared.credit_signal, epoch);
  if (block_lane() == 0) {
    store_relaxed<Scope::device>(&local->combine_epoch, epoch);
    const uint32_t peer = *block.mismatched - 1;
    if (!routed) {
      fail(a.world, Wait::none, Refusal::stale, a.world.rank, a.tokens,
           uint64_t(global<const int64_t>(a.routing.header)[0]));
    } else if (!agreed) {
      fail(a.world, Wait::none, Refusal::mismatch, peer, digest,
           0);  // the peer's may be the next call's by now
    }
  }
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace

MORI_KERNEL(ep_combine_bf16, EpCombineArgs, 512) { combine<bfloat16>(args); }
MORI_KERNEL(ep_combine_fp16, EpCombineArgs, 512) { combine<float16>(args); }
MORI_KERNEL(ep_combine_fp32, EpCombineArgs, 512) { combine<float>(args); }

}  // namespace mori
