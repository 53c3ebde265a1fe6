// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The host side of dispatch and combine: memory layout, argument blocks, launch shapes.
// Checks of tensors are the caller's (python/mori/ep); here only what memory safety needs.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "src/core/context.hpp"
#include "src/ops/ep/combine_plan.hpp"
#include "src/ops/ep/ep_args.hpp"

namespace mori::ep {

/// What dispatch makes of a payload; without a format rows and scales are sent as they come.
struct Convert {
  EpFormat format = EpFormat::as_is;
  EpElement element = EpElement::bf16;  ///< of the tokens
  EpScale scale = EpScale::fp32;
  uint32_t group = 0;         ///< elements that share a scale
  uint32_t hidden = 0;        ///< elements of a token
  bool column_major = false;  ///< received scales: slots are next to each other
};

struct Config {
  uint64_t row_bytes = 0;          ///< payload of a dispatched row, multiple of 16
  uint64_t combine_row_bytes = 0;  ///< largest row that is combined, multiple of 16
  uint64_t capacity = 0;           ///< rows of a receive buffer
  uint32_t world_size = 1;
  uint32_t num_experts = 0;
  uint32_t topk = 0;
  uint32_t max_tokens = 0;
  uint32_t scale_bytes = 0;   ///< per row, 0 = none
  uint32_t live_results = 0;  ///< receive buffers
  EpPlacement placement = EpPlacement::rank;
  uint32_t experts_per_rank = 0;  ///< most experts that live on one rank; expert layouts
  uint32_t expert_capacity = 0;   ///< slots of each expert; expert layout
  uint64_t grouped_slots = 0;     ///< slots of a receive buffer; grouped layout
  uint32_t alignment = 1;         ///< of each expert's first slot; grouped layout
  Convert convert;
  bool zero_padding = false;  ///< zeros behind an expert's rows, up to the next one's; grouped layout
  bool guarded = false;       ///< debug mode: guards behind parts of the memory, and stamps

  uint32_t fan() const { return world_size < topk ? world_size : topk; }
  bool by_expert() const { return placement != EpPlacement::rank; }
  /// Payloads of a receive buffer.
  uint64_t slots() const;
};

/// Bytes that nobody may write, in debug mode.
struct Guard {
  std::string behind;  ///< the part that they are behind
  uint64_t offset;
};
inline constexpr uint64_t kGuardBytes = 256;

/// Where everything lies, once: the total and the parts come from the same walk.
struct Layout {
  EpShared shared;  ///< offsets from the start of the dispatcher's memory
  EpReceive receive;
  EpScales scale;
  std::vector<uint64_t> receive_buffers;
  uint64_t signal_bytes = 0;   ///< at the start: signals and counts, zero before the first call
  uint64_t receive_bytes = 0;  ///< of one receive buffer
  uint64_t heap_bytes = 0;     ///< symmetric memory of a dispatcher
  uint64_t routing_bytes = 0;  ///< of a routing handle
  uint64_t local_bytes = 0;    ///< private device memory
  uint64_t combine_bytes = 0;  ///< of one combine buffer
  uint64_t combine_buffers = 1;
  uint64_t slots = 0;                 ///< payloads of a receive buffer
  EpRoutingAddress routing;           ///< offsets of the parts of a routing handle
  std::vector<Guard> guards;          ///< of the whole memory but for receive buffers
  std::vector<Guard> receive_guards;  ///< in a receive buffer, from its start
  uint64_t stamps =
      0;  ///< uint64_t[2][1 + max_tokens]: mori.ep's debug mode; of an epoch, then of its tokens
};
/// Throws ConfigError naming the field, its value and what is allowed.
Layout make_layout(const Config& config);
EpRoutingAddress routing_address(uint64_t start, const Config& config);

/// Kernel launch shape of a call; 0 = chosen from the number of tokens and the device.
struct Shape {
  uint32_t blocks = 0;
  uint32_t warps = 0;
};

/// What a call may say besides its tensors; both kernels take it.
struct CallOptions {
  uint64_t active = 0;  ///< uint64_t[1] in device memory: bit of each rank that takes part; 0 = all
  uint64_t trace = 0;   ///< uint64_t[kEpMaxBlocks][kEpTraceWords] in device memory, 0 = no
  uint32_t phases = kEpSend | kEpReceive;  ///< of a call in two launches, the half that is meant
  uint32_t blocks = 0;                     ///< at most so many, 0 = as the dispatcher does
};

struct DispatchCall {
  uint64_t x, ids, weights, scales;  ///< addresses; weights and scales may be 0
  uint64_t routing;                  ///< routing_bytes of device memory, written
  uint32_t tokens, id_bytes;
  uint32_t buffer;    ///< which receive buffer
  uint64_t load = 0;  ///< uint64_t[num_experts] in device memory, grows by my selections; 0 = no
  CallOptions options{};
};

enum class Element : uint8_t { bf16, fp16, fp32 };
struct CombineCall {
  uint64_t rows, out, bias, weights, ids;  ///< addresses; bias, weights and ids may be 0
  uint64_t routing;
  uint32_t tokens, id_bytes, hidden, row_count;
  Element element;
  uint64_t row_weights = 0;  ///< of the received rows, in the layouts by expert: instead of weights and ids
  EpWire wire = EpWire::as_is;  ///< bf16 rows only, of a multiple of 16 elements, may be narrowed
  CallOptions options{};
};

/// For measuring; 0 = chosen.
struct DispatchTuning {
  uint32_t senders = 0;  ///< blocks that send, where others make copies
};

class Dispatcher {
 public:
  /// `heap_offset`: start of layout.heap_bytes of symmetric memory, kept by the caller, the first
  /// signal_bytes of it zero on all ranks before any rank makes a call.
  Dispatcher(std::shared_ptr<core::Context> context, const Config& config, uint64_t heap_offset,
             const std::vector<int32_t>& expert_rank, Shape shape);
  ~Dispatcher();
  Dispatcher(const Dispatcher&) = delete;
  Dispatcher& operator=(const Dispatcher&) = delete;

  const Config& config() const { return config_; }
  const Layout& layout() const { return layout_; }
  /// Address of EpLocal: for tests that start the epochs elsewhere than at 0.
  uint64_t local() const { return local_; }
  void dispatch(const DispatchCall& call, uint64_t stream);
  void combine(const CombineCall& call, uint64_t stream);
  CombineTuning combine_tuning;  ///< for measuring; all 0 = chosen
  DispatchTuning dispatch_tuning;
  /// Makes the counters of this rank stand at these epochs, as if nothing later had come from anybody: for a
  /// rank that joins again, and for tests. Nothing may run meanwhile; barriers before and after are the
  /// caller's.
  void start_at(uint64_t dispatch_epoch, uint64_t combine_epoch);
  /// Moves experts to other ranks from the next call on. Nothing may run meanwhile, on any rank.
  void place_experts(const std::vector<int32_t>& expert_rank);

 private:
  /// What both argument blocks say alike.
  template <class Args, class Call>
  void fill_common(Args& args, const Call& call, uint64_t row_bytes) const;
  core::LaunchShape dispatch_shape(const DispatchCall& call, EpDispatchArgs& args) const;
  core::LaunchShape shape(const core::Function& function, uint64_t work, uint32_t most_blocks,
                          uint32_t shared_bytes_fixed, uint32_t shared_bytes_per_warp) const;

  std::shared_ptr<core::Context> context_;
  Config config_;
  Layout layout_;
  EpShared shared_;
  EpExperts experts_{};
  uint64_t local_ = 0, signals_ = 0;
  uint64_t expert_table_ = 0;
  uint64_t stamp_ = 0;  ///< of what a routing handle depends on; differs between ranks
  Shape wanted_;
  const core::Function* dispatch_kernel_;
  const core::Function* combine_kernels_[4];  ///< by Element, then of narrow rows
};

}  // namespace mori::ep
