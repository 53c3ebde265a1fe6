// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/transport/ibgda/fabric.hpp"

#include <algorithm>
#include <cstring>

namespace mori::ibgda {
namespace {

/// What one rank tells the others; behind it, for each rank and queue, what the queue's maker says of its
/// end.
struct Offer {
  uint64_t window = 0;
  uint64_t bytes = 0;
  uint32_t rkey = 0;
  uint32_t queues_per_peer = 0;
  NicKind kind = NicKind::software;
  uint32_t end_bytes = 0;
};

const char* words(NicKind kind) { return kind == NicKind::software ? "a software NIC" : "a NIC of hardware"; }

uint64_t take(uint64_t& end, uint64_t bytes) {
  const uint64_t at = end;
  end += (bytes + 63) / 64 * 64;
  return at;
}

}  // namespace

/// Where the tables are in their one piece of memory, which kernels and the NIC reach.
struct RankFabric::Layout {
  uint64_t fabric, heaps, regions, results, owners, cursor, bases, queues, bytes = 0;

  Layout(uint64_t ranks, uint64_t num_queues) {
    fabric = take(bytes, sizeof(Fabric));
    heaps = take(bytes, ranks * sizeof(RemoteHeap));
    regions = take(bytes, kMaxRegions * sizeof(LocalRegion));
    results = take(bytes, kResults * sizeof(Result));
    owners = take(bytes, kResults * sizeof(uint64_t));
    cursor = take(bytes, sizeof(uint64_t));
    bases = take(bytes, ranks * sizeof(uint64_t));
    queues = take(bytes, num_queues * sizeof(Queue));
  }
};

RankFabric::RankFabric(std::shared_ptr<core::SymmetricHeap> heap, const FabricOptions& options,
                       std::vector<Path> paths)
    : heap_(std::move(heap)), options_(options), paths_(std::move(paths)) {
  const uint32_t ranks = heap_->world_size(), me = heap_->rank();
  if (paths_.size() != ranks || paths_[me] != Path::direct) {
    throw core::ConfigError("paths: one for each of " + std::to_string(ranks) + " ranks, direct to rank " +
                            std::to_string(me) + " itself");
  }
  if (options_.queues_per_peer == 0 || options_.queues_per_peer > 64) {
    throw core::ConfigError("queues_per_peer=" + std::to_string(options_.queues_per_peer) +
                            " is not in 1..64");
  }
  const uint64_t num_queues = uint64_t(ranks) * options_.queues_per_peer;
  layout_ = std::make_unique<Layout>(ranks, num_queues);
  tables_ = heap_->device()->allocate_host(layout_->bytes);
  nic_ = make_nic();
  const auto on_device = [&](uint64_t offset) { return tables_.device + offset; };
  fabric() = {.queues = on_device(layout_->queues),
              .heaps = on_device(layout_->heaps),
              .regions = on_device(layout_->regions),
              .results = on_device(layout_->results),
              .result_owners = on_device(layout_->owners),
              .result_cursor = on_device(layout_->cursor),
              .result_lkey = 0,
              .num_results = kResults,
              .num_regions = 0,
              .queues_per_peer = options_.queues_per_peer};
  for (uint32_t pe = 0; pe < ranks; ++pe) {
    host<uint64_t>(layout_->bases)[pe] = paths_[pe] == Path::direct ? heap_->address(pe, 0) : 0;
    for (uint32_t j = 0; j < options_.queues_per_peer && has_queues(pe); ++j) {
      nic_->create_queue(queue(pe, j), options_.depth, pe);
    }
  }
  add_region(heap_->address(me, 0), heap_->capacity_bytes());
  fabric().result_lkey = nic_->add_region(fabric().results, kResults * sizeof(Result), false).local;
}

std::unique_ptr<QueueMaker> RankFabric::make_nic() const {
  const auto device = heap_->device();
  if (!options_.nic.empty()) return make_hardware(device, options_.family, options_.nic);
  SoftwareOptions software{.family = options_.family,
                           .rank = heap_->rank(),
                           .movers = {},
                           .address = options_.address,
                           .timeout = options_.timeout,
                           .device = options_.device};
  for (uint32_t pe = 0; pe < slots(); ++pe) {
    const bool chosen = !has_queues(pe) || options_.mover != MoverKind::automatic;
    const MoverKind fit = heap_->address(pe, 0) != 0 ? MoverKind::shm : MoverKind::tcp;
    software.movers.push_back(!chosen ? fit : has_queues(pe) ? options_.mover : MoverKind::automatic);
  }
  return make_software(device, software);
}

RankFabric::~RankFabric() {
  stop();
  heap_->device()->free_host(tables_);
}

Queue* RankFabric::queue(uint32_t pe, uint32_t j) const {
  return host<Queue>(layout_->queues) + pe * options_.queues_per_peer + j;
}

std::string RankFabric::offer() const {
  std::string ends;
  uint32_t end_bytes = 0;
  for (uint32_t pe = 0; pe < slots(); ++pe) {
    for (uint32_t j = 0; j < options_.queues_per_peer && has_queues(pe); ++j) {
      const std::string end = nic_->end(queue(pe, j));
      end_bytes = uint32_t(end.size());
      ends.resize(uint64_t(slots()) * options_.queues_per_peer * end_bytes);
      if (!end.empty())
        std::memcpy(&ends[(pe * options_.queues_per_peer + j) * end_bytes], end.data(), end_bytes);
    }
  }
  const Offer offer{.window = heap_->address(heap_->rank(), 0),
                    .bytes = heap_->capacity_bytes(),
                    .rkey = heap_rkey_,
                    .queues_per_peer = options_.queues_per_peer,
                    .kind = nic_->kind(),
                    .end_bytes = end_bytes};
  return std::string(reinterpret_cast<const char*>(&offer), sizeof offer) + ends;
}

void RankFabric::connect(const std::vector<std::string>& offers) {
  if (offers.size() != paths_.size()) {
    throw core::ConfigError("offers: " + std::to_string(offers.size()) + " of " +
                            std::to_string(paths_.size()) + " ranks");
  }
  const uint32_t queues = options_.queues_per_peer;
  for (uint32_t pe = 0; pe < offers.size(); ++pe) {
    const std::string who = "offers[" + std::to_string(pe) + "]: ";
    Offer theirs;
    const auto check_length = [&](uint64_t bytes, bool good) {
      if (good) return;
      throw core::ConfigError(who + std::to_string(offers[pe].size()) + " bytes instead of " +
                              std::to_string(bytes));
    };
    check_length(sizeof theirs, offers[pe].size() >= sizeof theirs);
    std::memcpy(&theirs, offers[pe].data(), sizeof theirs);
    if (theirs.queues_per_peer != queues || theirs.kind != nic_->kind()) {
      throw core::ConfigError(who + "rank " + std::to_string(pe) + " has " +
                              std::to_string(theirs.queues_per_peer) + " queues per peer on " +
                              words(theirs.kind) + ", rank " + std::to_string(heap_->rank()) + " has " +
                              std::to_string(queues) + " on " + words(nic_->kind()));
    }
    const uint64_t bytes = sizeof theirs + uint64_t(slots()) * queues * theirs.end_bytes;
    check_length(bytes, offers[pe].size() == bytes);
    host<RemoteHeap>(layout_->heaps)[pe] = {
        .address = theirs.window, .bytes = theirs.bytes, .rkey = theirs.rkey, .path = uint32_t(paths_[pe])};
    for (uint32_t j = 0; j < queues && has_queues(pe); ++j) {
      const uint64_t at = sizeof theirs + uint64_t(heap_->rank() * queues + j) * theirs.end_bytes;
      nic_->connect(queue(pe, j), offers[pe].substr(at, theirs.end_bytes));
    }
    point_queues(pe);
  }
  nic_->start();
}

/// Tells the NIC how much of a peer's window its requests may touch.
void RankFabric::point_queues(uint32_t pe) {
  const RemoteHeap& heap = host<RemoteHeap>(layout_->heaps)[pe];
  for (uint32_t j = 0; j < options_.queues_per_peer && has_queues(pe); ++j) {
    nic_->point(queue(pe, j), {heap.address, heap.bytes, heap.rkey, heap_->address(pe, 0)});
  }
}

void RankFabric::follow_heap() {
  const std::lock_guard lock(regions_mutex_);
  const uint64_t bytes = heap_->capacity_bytes();
  LocalRegion& mine = *host<LocalRegion>(layout_->regions);
  nic_->resize_region(mine.lkey, bytes);
  __atomic_store_n(&mine.end, mine.begin + bytes, __ATOMIC_RELEASE);
  for (uint32_t pe = 0; pe < slots(); ++pe) {
    __atomic_store_n(&host<RemoteHeap>(layout_->heaps)[pe].bytes, bytes, __ATOMIC_RELEASE);
    point_queues(pe);
  }
}

void RankFabric::stop() { nic_->stop(); }

uint64_t RankFabric::address() const { return tables_.device; }
uint64_t RankFabric::bases() const { return tables_.device + layout_->bases; }

void RankFabric::add_region(uint64_t begin, uint64_t bytes) {
  const std::lock_guard lock(regions_mutex_);
  LocalRegion* regions = host<LocalRegion>(layout_->regions);
  uint32_t at = 0;
  while (at < fabric().num_regions && regions[at].end != 0) ++at;
  if (at == kMaxRegions) {
    throw core::CapacityError(std::to_string(kMaxRegions) +
                              " regions are registered, which is all there may be");
  }
  regions[at].begin = begin;
  const RegionKeys keys = nic_->add_region(begin, bytes, true);
  if (at == 0) heap_rkey_ = keys.remote;
  regions[at].lkey = keys.local;
  __atomic_store_n(&regions[at].end, begin + bytes, __ATOMIC_RELEASE);
  if (at == fabric().num_regions) __atomic_store_n(&fabric().num_regions, at + 1, __ATOMIC_RELEASE);
}

void RankFabric::remove_region(uint64_t begin) {
  const std::lock_guard lock(regions_mutex_);
  LocalRegion* regions = host<LocalRegion>(layout_->regions);
  for (uint32_t at = 1; at < fabric().num_regions; ++at) {  // 0 is the heap
    if (regions[at].end == 0 || regions[at].begin != begin) continue;
    __atomic_store_n(&regions[at].end, uint64_t(0), __ATOMIC_RELEASE);
    nic_->remove_region(regions[at].lkey);
    return;
  }
}

bool RankFabric::has_region(uint64_t begin, uint64_t bytes) const {
  const std::lock_guard lock(regions_mutex_);
  const LocalRegion* regions = host<LocalRegion>(layout_->regions);
  return std::any_of(regions, regions + fabric().num_regions, [&](const LocalRegion& r) {
    return begin >= r.begin && begin < r.end && bytes <= r.end - begin;
  });
}

std::vector<std::string> RankFabric::violations() const { return nic_->violations(); }

}  // namespace mori::ibgda
