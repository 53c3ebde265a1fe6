// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/ops/ep/dispatcher.hpp"

#include <algorithm>
#include <iterator>
#include <string>

namespace mori::ep {
namespace {

using core::ConfigError;

constexpr uint64_t kAlign = 256;
constexpr uint32_t kDefaultWarps = 16;
// More blocks than this do not make a link faster, and leave SMs to the experts.
constexpr uint32_t kDefaultBlocks = 64;
constexpr uint32_t kManyBlocks = 128;     // of a large dispatch
constexpr uint64_t kFewBytes = 8 << 20;   // below that a dispatch is small
constexpr uint64_t kBytesPerWarp = 2048;  // of payload: fewer blocks than that gives are slower
constexpr uint32_t kMostBatch = 256;      // tokens that a block plans at a time
constexpr uint32_t kChunkTokens = 16;     // whose copies the receiver makes while later ones are on their way
constexpr uint32_t kSharedBytes = 47 << 10;  // of a block: what every GPU grants unasked

// Two combine buffers, used in turn, save the wait for the peers at the beginning of a call; where they would
// be large that wait is short beside the copy, and there is one.
constexpr uint64_t kTwoBuffersBytes = 256 << 20;

// What a rank may hope to find in a CPU's caches when it reads what was written to it.
constexpr uint64_t kCacheBytes = 2 << 20;

void require(bool good, const char* name, uint64_t value, const std::string& allowed) {
  if (!good) throw ConfigError(std::string(name) + "=" + std::to_string(value) + ": must be " + allowed);
}

struct Walk {  // hands out aligned ranges one after the other
  uint64_t end = 0;
  uint64_t take(uint64_t bytes) {
    const uint64_t start = end;
    end = (end + bytes + kAlign - 1) / kAlign * kAlign;
    return start;
  }
  /// The same with a guard behind it.
  uint64_t take(uint64_t bytes, const char* name, std::vector<Guard>* guards) {
    const uint64_t start = take(bytes);
    if (guards != nullptr && bytes != 0) guards->push_back({name, take(kGuardBytes)});
    return start;
  }
};

// FNV-1a over what must be equal on all ranks in a call.
constexpr uint64_t kDigestStart = 0xcbf29ce484222325u;
uint64_t digest_of(std::initializer_list<uint64_t> fields, uint64_t h = kDigestStart) {
  for (uint64_t field : fields) {
    for (int byte = 0; byte < 8; ++byte) h = (h ^ (field >> (8 * byte) & 0xff)) * 0x100000001b3u;
  }
  return h;
}

/// EpExperts as one table: for each expert its rank, then for each its key, then the first key of each rank.
std::vector<int32_t> expert_table(const Config& c, const std::vector<int32_t>& expert_rank) {
  require(expert_rank.size() == c.num_experts, "expert_map length", expert_rank.size(), "num_experts");
  std::vector<int32_t> first(c.world_size + 1);
  for (int32_t rank : expert_rank) {
    require(rank >= 0 && uint32_t(rank) < c.world_size, "expert_map entry", uint32_t(rank), "a rank");
    ++first[size_t(rank) + 1];
  }
  for (uint32_t r = 0; r < c.world_size; ++r) {
    require(!c.by_expert() || uint32_t(first[r + 1]) <= c.experts_per_rank, "experts of a rank",
            uint64_t(first[r + 1]), "at most experts_per_rank");
    first[r + 1] += first[r];
  }
  std::vector<int32_t> table(expert_rank), next(first);
  for (int32_t rank : expert_rank) table.push_back(next[size_t(rank)]++);
  table.insert(table.end(), first.begin(), first.end());
  return table;
}

}  // namespace

uint64_t Config::slots() const {
  if (placement == EpPlacement::expert) return uint64_t(experts_per_rank) * expert_capacity;
  return placement == EpPlacement::grouped ? grouped_slots : capacity;
}

namespace {

void check(const Config& c) {
  require(c.world_size >= 1 && c.world_size <= kMaxRanks, "world_size", c.world_size, "1 to 64");
  require(c.row_bytes > 0 && c.row_bytes % 16 == 0, "row bytes", c.row_bytes, "a positive multiple of 16");
  require(c.combine_row_bytes > 0 && c.combine_row_bytes % 16 == 0, "combined row bytes", c.combine_row_bytes,
          "a positive multiple of 16");
  require(c.topk >= 1 && c.topk <= kMaxTopk, "topk", c.topk, "1 to 32");
  require(c.num_experts >= 1 && c.num_experts < (1u << 31), "num_experts", c.num_experts, "1 to 2^31 - 1");
  require(c.max_tokens >= 1 && c.max_tokens < (1u << 31), "max_tokens", c.max_tokens, "1 to 2^31 - 1");
  require(c.live_results >= 1, "live_results", c.live_results, "at least 1");
  require(c.capacity >= 1 && c.capacity < (uint64_t(1) << 32), "capacity", c.capacity, "1 to 2^32 - 1");
  require(uint64_t(c.max_tokens) * c.fan() < (uint64_t(1) << 32), "max_tokens", c.max_tokens,
          "such that max_tokens x min(world_size, topk) < 2^32");
  if (!c.by_expert()) return;
  require(c.num_experts <= kEpMaxKeys, "num_experts", c.num_experts,
          "at most " + std::to_string(kEpMaxKeys) + " in the layouts by expert");
  require(c.experts_per_rank >= 1 && c.experts_per_rank <= c.num_experts, "experts_per_rank",
          c.experts_per_rank, "1 to num_experts");
  require(c.alignment >= 1 && c.alignment <= (1u << 20), "alignment", c.alignment, "1 to 2^20");
  require(c.slots() >= 1 && c.slots() < (uint64_t(1) << 31), "slots of a receive buffer", c.slots(),
          "1 to 2^31 - 1");
}

uint32_t scale_columns(const Convert& v) {
  return v.format == EpFormat::as_is ? 1 : (v.hidden + v.group - 1) / v.group;
}

void check(const Convert& v, const Config& c) {
  if (v.format == EpFormat::as_is) return;
  const bool e2m1 = v.format == EpFormat::e2m1;
  require(v.hidden * uint64_t(e2m1 ? 1 : 2) == c.row_bytes * 2, "hidden", v.hidden, "that of a row");
  require(v.group == (e2m1 ? 32u : 128u) || (!e2m1 && v.group == v.hidden), "scale group", v.group,
          e2m1 ? "32" : "128 or hidden");
  require(!e2m1 || v.scale == EpScale::ue8m0, "scale type", uint64_t(v.scale), "ue8m0 for e2m1");
  require(c.scale_bytes == scale_columns(v) * (v.scale == EpScale::fp32 ? 4 : 1), "scale bytes",
          c.scale_bytes, "one scale for each group");
}

/// Scales lie beside their payload, slot by slot, or so that a column's are next to each other (as grouped
/// GEMMs read them: columns 16-byte aligned).
EpScales make_scales(const Config& c, uint64_t* bytes) {
  EpScales s{};
  s.bytes = c.scale_bytes;
  s.columns = scale_columns(c.convert);
  s.block = 0xffffffffu;
  s.row_bytes = c.scale_bytes;
  s.column_bytes = s.bytes / s.columns;
  *bytes = c.slots() * c.scale_bytes;
  if (!c.convert.column_major || c.scale_bytes == 0) return s;
  const uint32_t element = s.bytes / s.columns;
  const uint64_t rows = c.placement == EpPlacement::expert ? c.expert_capacity : c.slots();
  const uint64_t column_bytes = (rows * element + 15) / 16 * 16;
  require(column_bytes < (uint64_t(1) << 32), "slots of a receive buffer", rows,
          "such that a column of scales is below 4 GiB");
  s.block = uint32_t(rows);
  s.row_bytes = element;
  s.column_bytes = uint32_t(column_bytes);
  s.block_bytes = column_bytes * s.columns;
  *bytes = (c.slots() + rows - 1) / rows * s.block_bytes;
  return s;
}

uint64_t announcement_words(const Config& c) {
  return kAnnounceCounts + c.world_size + (c.by_expert() ? c.num_experts : 0);
}

}  // namespace

Layout make_layout(const Config& c) {
  check(c);
  check(c.convert, c);
  Layout l{};
  const uint64_t ranks = c.world_size;
  Walk heap;
  l.shared.announcements = heap.take(2 * 8 * ranks * announcement_words(c));
  l.shared.chunk_flags = heap.take(8 * ranks * kEpMaxChunks);
  const uint64_t combined_rows = uint64_t(c.max_tokens) * c.fan();
  l.shared.combine_announcements = heap.take(2 * 8 * ranks);
  l.shared.combine_flags = heap.take(2 * 8 * combined_rows);
  l.signal_bytes = heap.end;
  std::vector<Guard>* guards = c.guarded ? &l.guards : nullptr;
  if (c.guarded) l.guards.push_back({"the signals", heap.take(kGuardBytes)});
  l.combine_bytes = combined_rows * c.combine_row_bytes;
  l.combine_buffers = 2 * l.combine_bytes <= kTwoBuffersBytes ? 2 : 1;
  l.shared.combine_rows = heap.take(l.combine_buffers * l.combine_bytes, "the combine buffers", guards);
  if (c.guarded) l.stamps = heap.take(2 * 8 * (1 + uint64_t(c.max_tokens)), "the stamps", guards);
  uint64_t scale_bytes = 0;
  l.slots = c.slots();
  l.scale = make_scales(c, &scale_bytes);
  Walk buffer;
  guards = c.guarded ? &l.receive_guards : nullptr;
  l.receive.rows = buffer.take(l.slots * c.row_bytes, "x", guards);
  l.receive.ids = buffer.take(c.capacity * c.topk * 8, "topk_ids", guards);
  l.receive.weights = buffer.take(c.capacity * c.topk * 4, "topk_weights", guards);
  l.receive.scales = buffer.take(scale_bytes, "scales", guards);
  l.receive.sources = buffer.take(c.capacity * 8, "src", guards);
  l.receive.routes = buffer.take(c.by_expert() ? c.capacity * c.topk * 4 : 0, "routes", guards);
  l.receive.ranges = buffer.take(c.by_expert() ? 8 * ranks * kEpMaxChunks : 0, "ranges", guards);
  l.shared.receive = heap.end;
  l.shared.receive_stride = buffer.end;
  for (uint32_t i = 0; i < c.live_results; ++i) l.receive_buffers.push_back(heap.take(buffer.end));
  l.receive_bytes = buffer.end;
  l.heap_bytes = heap.end;
  l.routing = routing_address(0, c);
  l.routing_bytes = (l.routing.routes + (c.by_expert() ? c.capacity * c.topk * 4 : 0) + 7) / 8 * 8;
  l.local_bytes = sizeof(EpLocal) + 8 * kEpMaxBlocks * (ranks + kEpCountWords);
  return l;
}

EpRoutingAddress routing_address(uint64_t start, const Config& c) {
  const uint64_t ranks = c.world_size;
  EpRoutingAddress a{};
  a.header = start;
  a.received = a.header + 4 * 8;
  a.sent = a.received + ranks * 8;
  a.returns = a.sent + ranks * 8;
  a.chunks = a.returns + ranks * 8;
  a.buffer = a.chunks + ranks * 8;
  a.masks = a.buffer + 8;
  a.positions = a.masks + uint64_t(c.max_tokens) * 8;
  a.counts = a.positions + uint64_t(c.max_tokens) * c.fan() * 4;
  a.offsets = a.counts + uint64_t(c.experts_per_rank) * 4;
  a.routes = a.offsets + (uint64_t(c.experts_per_rank) + 1) * 4;
  return a;
}

namespace {

// Tables of the kernels, by EpElement and by whether rows lie by expert.
struct KernelName {
  const char* unit;
  const char* kernel;
};

constexpr KernelName kDispatchAsIs[2] = {
    {"ep_dispatch", "ep_dispatch"},
    {"ep_dispatch", "ep_dispatch_by_expert"},
};
constexpr KernelName kDispatchConvert[3][2] = {
    {{"ep_dispatch_convert_bf16", "ep_dispatch_bf16"},
     {"ep_dispatch_convert_bf16", "ep_dispatch_by_expert_bf16"}},
    {{"ep_dispatch_convert_fp16", "ep_dispatch_fp16"},
     {"ep_dispatch_convert_fp16", "ep_dispatch_by_expert_fp16"}},
    {{"ep_dispatch_convert_fp32", "ep_dispatch_fp32"},
     {"ep_dispatch_convert_fp32", "ep_dispatch_by_expert_fp32"}},
};
constexpr size_t kNarrowCombine = 3;
constexpr KernelName kCombine[4] = {
    {"ep_combine_bf16", "ep_combine_bf16"},
    {"ep_combine_fp16", "ep_combine_fp16"},
    {"ep_combine_fp32", "ep_combine_fp32"},
    {"ep_combine_narrow", "ep_combine_narrow"},
};

const KernelName& dispatch_kernel(const Config& c) {
  const bool as_is = c.convert.format == EpFormat::as_is;
  return as_is ? kDispatchAsIs[c.by_expert()] : kDispatchConvert[size_t(c.convert.element)][c.by_expert()];
}

}  // namespace

Dispatcher::Dispatcher(std::shared_ptr<core::Context> context, const Config& config, uint64_t heap_offset,
                       const std::vector<int32_t>& expert_rank, Shape shape)
    : context_(std::move(context)),
      config_(config),
      layout_(make_layout(config)),
      shared_(layout_.shared),
      wanted_(shape) {
  if (config.world_size != context_->world().world_size) {
    throw ConfigError("world_size=" + std::to_string(config.world_size) + " is not the context's");
  }
  for (uint64_t* offset : {&shared_.announcements, &shared_.chunk_flags, &shared_.combine_announcements,
                           &shared_.combine_flags, &shared_.combine_rows, &shared_.receive}) {
    *offset += heap_offset;
  }
  core::Device& device = context_->device();
  const KernelName& name = dispatch_kernel(config);
  dispatch_kernel_ = &device.function(name.unit, name.kernel, sizeof(EpDispatchArgs));
  for (size_t i = 0; i < std::size(kCombine); ++i)
    combine_kernels_[i] = &device.function(kCombine[i].unit, kCombine[i].kernel, sizeof(EpCombineArgs));
  const std::vector<int32_t> table = expert_table(config_, expert_rank);
  local_ = device.allocate(layout_.local_bytes);
  expert_table_ = device.allocate(table.size() * 4);
  experts_ = {expert_table_, expert_table_ + 4ull * config.num_experts,
              expert_table_ + 8ull * config.num_experts};
  place_experts(expert_rank);
  const World& world = context_->world();
  device.copy(reinterpret_cast<uint64_t>(&signals_), world.bases + 8ull * world.rank, 8);
  signals_ += heap_offset;
}

void Dispatcher::place_experts(const std::vector<int32_t>& expert_rank) {
  const std::vector<int32_t> table = expert_table(config_, expert_rank);
  context_->device().copy(expert_table_, reinterpret_cast<uint64_t>(table.data()), table.size() * 4);
  stamp_ = digest_of(
      {config_.world_size, context_->world().rank, config_.num_experts, config_.topk, config_.max_tokens});
  for (int32_t rank : expert_rank) stamp_ = digest_of({uint64_t(rank)}, stamp_);
}

Dispatcher::~Dispatcher() {
  context_->device().free(local_);
  if (expert_table_ != 0) context_->device().free(expert_table_);
}

core::LaunchShape Dispatcher::shape(const core::Function& function, uint64_t work, uint32_t most_blocks,
                                    uint32_t shared_bytes_fixed, uint32_t shared_bytes_per_warp) const {
  const core::Properties& p = context_->device().properties();
  const bool cpu = context_->device().kind() == core::Kind::cpu;
  core::LaunchShape shape;
  shape.warps = wanted_.warps != 0 ? wanted_.warps : cpu ? 1 : kDefaultWarps;
  shape.warps = std::min(shape.warps, 512 / p.warp_size);  // the kernels' launch bound
  shape.shared_bytes = shared_bytes_fixed + shared_bytes_per_warp * shape.warps;
  // All blocks wait for each other: they must be resident together.
  const uint32_t resident = context_->resident_blocks(function, shape.warps, shape.shared_bytes);
  const uint32_t limit = std::min(resident, kEpMaxBlocks);
  uint32_t most = std::min(wanted_.blocks != 0 ? wanted_.blocks : kDefaultBlocks, limit);
  if (most_blocks != 0) most = std::min(most, most_blocks);
  const uint64_t useful = wanted_.blocks != 0 ? most : (work + shape.warps - 1) / shape.warps;
  shape.blocks = uint32_t(std::clamp<uint64_t>(useful, 1, most));
  return shape;
}

template <class Args, class Call>
void Dispatcher::fill_common(Args& a, const Call& call, uint64_t row_bytes) const {
  a.world = context_->world();
  a.shared = shared_;
  a.routing = routing_address(call.routing, config_);
  a.local = local_;
  a.ids = call.ids;
  a.weights = call.weights;
  a.stamp = stamp_;
  a.tokens = call.tokens;
  a.topk = config_.topk;
  a.id_bytes = call.id_bytes;
  a.num_experts = config_.num_experts;
  a.fan = config_.fan();
  a.large = uint64_t(call.tokens) * a.fan * row_bytes > kCacheBytes;
}

namespace {

/// Shared memory of a dispatch block, as DispatchBlock divides it, and the tokens that fit into a batch.
uint32_t dispatch_shared_bytes(const Config& c, uint32_t* batch) {
  const uint32_t ranks = c.world_size, keys = c.by_expert() ? c.num_experts : 0;
  uint32_t fixed = 8 * (5 + ranks) + 16 + 4 * (ranks * (kAnnounceCounts + ranks) + 7 * ranks + 2 * keys);
  if (keys != 0) fixed += 4 * (2 * c.experts_per_rank + 1) + 2 * keys;
  if (c.num_experts <= kEpCachedExperts) fixed += c.num_experts;
  const uint32_t token = 8 + 4 * c.fan() + (keys != 0 ? 4 * c.topk : 0) + c.topk;
  const uint32_t room = kSharedBytes > fixed ? kSharedBytes - fixed : 0;
  *batch = std::clamp(room / token, 1u, kMostBatch);
  return fixed + *batch * token;
}

}  // namespace

/// Blocks that send, and behind them, in the layouts by expert, blocks that make copies: with a few blocks,
/// and on the fast CPU target, whose blocks have a thread each, all do both.
core::LaunchShape Dispatcher::dispatch_shape(const DispatchCall& call, EpDispatchArgs& a) const {
  const core::Properties& p = context_->device().properties();
  const uint32_t shared_bytes = dispatch_shared_bytes(config_, &a.batch);
  const bool sends = (call.options.phases & kEpSend) != 0;
  uint64_t work = uint64_t(call.tokens) * ((config_.row_bytes + kBytesPerWarp - 1) / kBytesPerWarp);
  if (!sends) work = config_.by_expert() ? config_.capacity : 1;
  core::LaunchShape launch;
  const uint32_t bound = config_.convert.format == EpFormat::as_is ? 512 : 256;  // of the kernel's threads
  const bool cpu = context_->device().kind() == core::Kind::cpu;
  const bool few = call.tokens * config_.row_bytes < kFewBytes;
  launch.warps = wanted_.warps != 0 ? wanted_.warps : cpu ? 1 : few ? kDefaultWarps / 2 : kDefaultWarps;
  launch.warps = std::min(launch.warps, bound / p.warp_size);
  launch.shared_bytes = shared_bytes;
  // Blocks wait for each other's ranks: they must be resident together.
  uint32_t most =
      std::min(context_->resident_blocks(*dispatch_kernel_, launch.warps, shared_bytes), kEpMaxBlocks);
  most = std::min(most, wanted_.blocks != 0 ? wanted_.blocks : few ? kDefaultBlocks : kManyBlocks);
  if (call.options.blocks != 0) most = std::min(most, call.options.blocks);
  const uint64_t useful = wanted_.blocks != 0 ? most : (work + launch.warps - 1) / launch.warps;
  launch.blocks = uint32_t(std::clamp<uint64_t>(useful, 1, most));
  a.senders = launch.blocks;
  uint32_t turns = 1;
  const bool split = config_.by_expert() && sends && p.warp_size > 1 && launch.blocks >= 4;
  if (split) {
    const uint32_t wanted = dispatch_tuning.senders != 0 ? dispatch_tuning.senders : launch.blocks / 2;
    a.senders = std::clamp(wanted, 1u, launch.blocks - 1);
    a.tickets = (call.options.phases & kEpReceive) != 0;
    turns = std::clamp((call.tokens + a.senders * kChunkTokens - 1) / (a.senders * kChunkTokens), 1u,
                       kEpMaxChunks / a.senders);
  }
  a.chunks = a.senders * turns;
  return launch;
}

void Dispatcher::dispatch(const DispatchCall& call, uint64_t stream) {
  require(call.tokens <= config_.max_tokens, "tokens", call.tokens, "at most max_tokens");
  require(call.buffer < config_.live_results, "buffer", call.buffer, "below live_results");
  require(call.options.phases >= 1 && call.options.phases <= 3, "phases", call.options.phases, "1 to 3");
  EpDispatchArgs a{};
  fill_common(a, call, config_.row_bytes);
  const Convert& v = config_.convert;
  a.receive = layout_.receive;
  a.experts = experts_;
  a.scale = layout_.scale;
  a.convert = {v.format, v.element, v.scale, v.group, v.hidden, 0};
  a.x = call.x;
  a.scales = call.scales;
  a.active = call.options.active;
  a.load = call.load;
  a.trace = call.options.trace;
  a.row_bytes = config_.row_bytes;
  a.capacity = config_.capacity;
  a.slots = layout_.slots;
  const uint64_t digest =
      digest_of({config_.row_bytes, config_.num_experts, config_.topk, call.id_bytes, call.weights != 0,
                 call.scales != 0 ? config_.scale_bytes : 0, uint64_t(config_.placement), uint64_t(v.format),
                 uint64_t(v.scale), v.group});
  a.digest = uint32_t(digest ^ digest >> 32);
  a.placement = config_.placement;
  a.experts_per_rank = config_.experts_per_rank;
  a.expert_capacity = config_.expert_capacity;
  a.alignment = config_.alignment;
  a.zero_padding = config_.zero_padding;
  a.phases = call.options.phases;
  a.buffer = call.buffer;
  const core::LaunchShape launch = dispatch_shape(call, a);
  context_->device().launch(*dispatch_kernel_, launch, stream, &a);
}

void Dispatcher::start_at(uint64_t dispatch_epoch, uint64_t combine_epoch) {
  core::Device& device = context_->device();
  const uint64_t epochs[2] = {dispatch_epoch, combine_epoch}, ranks = config_.world_size;
  device.fill(local_, 0, layout_.local_bytes);
  device.copy(local_, reinterpret_cast<uint64_t>(epochs), sizeof epochs);
  device.fill(signals_ + layout_.shared.announcements, 0,
              layout_.shared.chunk_flags - layout_.shared.announcements);
  const std::vector<uint64_t> seen(ranks * kEpMaxChunks, dispatch_epoch);
  device.copy(signals_ + layout_.shared.chunk_flags, reinterpret_cast<uint64_t>(seen.data()),
              8 * seen.size());
  device.fill(signals_ + layout_.shared.combine_announcements, 0, 2 * 8 * ranks);
  const std::vector<uint64_t> returned(2ull * config_.max_tokens * config_.fan(), combine_epoch);
  device.copy(signals_ + layout_.shared.combine_flags, reinterpret_cast<uint64_t>(returned.data()),
              8 * returned.size());
}

void Dispatcher::combine(const CombineCall& call, uint64_t stream) {
  require(call.tokens <= config_.max_tokens, "tokens", call.tokens, "at most max_tokens");
  const uint64_t row_bytes = uint64_t(call.hidden) * (call.element == Element::fp32 ? 4 : 2);
  require(row_bytes % 16 == 0 && row_bytes <= config_.combine_row_bytes, "combined row bytes", row_bytes,
          "a multiple of 16, at most " + std::to_string(config_.combine_row_bytes));
  const bool narrow = call.wire != EpWire::as_is;
  if (narrow) {
    require(call.element == Element::bf16, "rows narrowed to fp8: element", uint64_t(call.element),
            "bf16 (0)");
    require(call.hidden % 16 == 0, "hidden of rows narrowed to fp8", call.hidden, "a multiple of 16");
  }
  EpCombineArgs a{};
  fill_common(a, call, row_bytes);
  a.rows = call.rows;
  a.expert_rank = experts_.rank;
  a.out = call.out;
  a.bias = call.bias;
  a.row_weights = call.row_weights;
  a.active = call.options.active;
  a.trace = call.options.trace;
  a.digest = digest_of({call.hidden, uint64_t(call.element), uint64_t(call.wire)});
  a.second_buffer = layout_.combine_buffers == 2 ? layout_.combine_bytes : 0;
  a.second_flags = 8ull * config_.max_tokens * config_.fan();
  a.placement = config_.placement;
  a.hidden = call.hidden;
  a.row_count = call.row_count;
  a.phases = call.options.phases;
  a.terms = 1 + a.fan + (config_.by_expert() ? a.topk : 0);
  a.wire = call.wire;
  const core::Function& kernel = *combine_kernels_[narrow ? kNarrowCombine : size_t(call.element)];
  const bool cpu = context_->device().kind() == core::Kind::cpu;
  const CombineTuning& t = combine_tuning;
  const uint64_t work = combine_work(t, call.tokens, cpu);
  const core::LaunchShape launch = shape(kernel, work, t.blocks != 0 ? t.blocks : call.options.blocks,
                                         8 * (3 * config_.world_size + 4), 16 * a.terms);
  plan_combine(a, t, launch, cpu);
  context_->device().launch(kernel, launch, stream, &a);
}

}  // namespace mori::ep
