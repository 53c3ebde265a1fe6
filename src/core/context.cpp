// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/core/context.hpp"

#include <algorithm>
#include <cstring>

#include "src/core/errors.hpp"

namespace mori::core {
namespace {

ErrorWord* word(const HostMemory& memory) { return static_cast<ErrorWord*>(memory.host); }

uint64_t ticks(uint64_t timeout_ns, uint64_t clock_hz) {
  return uint64_t(double(timeout_ns) * (double(clock_hz) / 1e9));
}

}  // namespace

const char* wait_name(Wait wait) {
  switch (wait) {
    case Wait::none:
      return "nothing";
    case Wait::barrier:
      return "shmem.barrier";
    case Wait::signal:
      return "shmem.signal_wait_until";
    case Wait::grid:
      return "blocks of the same launch";
    case Wait::value:
      return "shmem.wait_until";
    case Wait::team:
      return "shmem collective";
    case Wait::collective:
      return "ccl: a step";
    case Wait::packet:
      return "ccl: a packet";
    case Wait::copies:
      return "ccl: a member's copies";
    case Wait::dispatch_counts:
      return "ep.dispatch: row counts";
    case Wait::dispatch_rows:
      return "ep.dispatch: rows";
    case Wait::combine_credit:
      return "ep.combine: free combine buffer";
    case Wait::combine_rows:
      return "ep.combine: returned rows";
    case Wait::ibgda_room:
      return "ibgda.room";
    case Wait::ibgda_turn:
      return "ibgda.turn";
    case Wait::ibgda_completion:
      return "ibgda.completion";
    case Wait::ibgda_error:
      return "ibgda.error";
    case Wait::ibgda_result:
      return "ibgda.result";
  }
  return "unknown wait";
}

const char* refusal_name(Refusal refusal) {
  switch (refusal) {
    case Refusal::none:
      return "none";
    case Refusal::capacity:
      return "capacity";
    case Refusal::mismatch:
      return "mismatch";
    case Refusal::expert_id:
      return "expert_id";
    case Refusal::stale:
      return "stale";
    case Refusal::expert_capacity:
      return "expert_capacity";
    case Refusal::unreachable:
      return "unreachable";
    case Refusal::workspace:
      return "workspace";
    case Refusal::unregistered:
      return "unregistered";
  }
  return "unknown refusal";
}

Context::Context(std::shared_ptr<Device> device, const Group& group)
    : device_(std::move(device)), ranks_on_device_(group.ranks_on_device) {
  if (group.world_size == 0 || group.rank >= group.world_size) {
    throw ConfigError("rank " + std::to_string(group.rank) + " of " + std::to_string(group.world_size) +
                      " ranks: rank must be below the number of ranks");
  }
  error_memory_ = device_->allocate_host(sizeof(ErrorWord));
  world_ = {.bases = group.bases,
            .error = error_memory_.device,
            .timeout_ticks = ticks(group.timeout_ns, device_->properties().clock_hz),
            .rank = group.rank,
            .world_size = group.world_size,
            .fabric = 0};
  timeout_ns_ = group.timeout_ns;
}

Context::~Context() { device_->free_host(error_memory_); }

uint32_t Context::resident_blocks(const Function& function, uint32_t warps, uint32_t shared_bytes) const {
  return std::max(1u, device_->max_resident_blocks(function, warps, shared_bytes) / ranks_on_device_);
}

void Context::use_queues(uint64_t bases, uint64_t fabric, std::shared_ptr<void> owner) {
  world_.bases = bases;
  world_.fabric = fabric;
  queues_ = std::move(owner);
}

ErrorWord Context::error() const {
  ErrorWord* e = word(error_memory_);
  ErrorWord copy{};
  copy.state = __atomic_load_n(&e->state, __ATOMIC_ACQUIRE);
  copy.abort = __atomic_load_n(&e->abort, __ATOMIC_ACQUIRE);
  if (copy.state != 2) return copy;
  copy.wait = __atomic_load_n(&e->wait, __ATOMIC_RELAXED);
  copy.refusal = __atomic_load_n(&e->refusal, __ATOMIC_RELAXED);
  copy.peer = __atomic_load_n(&e->peer, __ATOMIC_RELAXED);
  copy.expected = __atomic_load_n(&e->expected, __ATOMIC_RELAXED);
  copy.seen = __atomic_load_n(&e->seen, __ATOMIC_RELAXED);
  return copy;
}

bool Context::is_clean() const {
  const ErrorWord* e = word(error_memory_);
  return (__atomic_load_n(&e->state, __ATOMIC_ACQUIRE) | __atomic_load_n(&e->abort, __ATOMIC_ACQUIRE)) == 0;
}

void Context::clear_refusal() {
  ErrorWord* e = word(error_memory_);
  if (error().state == 2 && e->refusal != 0) __atomic_store_n(&e->state, uint64_t(0), __ATOMIC_RELEASE);
}

void Context::clear_failure() {
  ErrorWord* e = word(error_memory_);
  __atomic_store_n(&e->wait, uint64_t(0), __ATOMIC_RELAXED);  // what kernels look at, see failed()
  __atomic_store_n(&e->abort, uint64_t(0), __ATOMIC_RELAXED);
  __atomic_store_n(&e->state, uint64_t(0), __ATOMIC_RELEASE);
}

void Context::record(Wait wait, Refusal refusal, uint64_t peer, uint64_t expected, uint64_t seen) {
  ErrorWord* e = word(error_memory_);
  uint64_t clean = 0;
  if (!__atomic_compare_exchange_n(&e->state, &clean, uint64_t(1), false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
    return;
  __atomic_store_n(&e->wait, uint64_t(wait), __ATOMIC_RELAXED);
  __atomic_store_n(&e->refusal, uint64_t(refusal), __ATOMIC_RELAXED);
  __atomic_store_n(&e->peer, peer, __ATOMIC_RELAXED);
  __atomic_store_n(&e->expected, expected, __ATOMIC_RELAXED);
  __atomic_store_n(&e->seen, seen, __ATOMIC_RELAXED);
  __atomic_store_n(&e->state, uint64_t(2), __ATOMIC_RELEASE);
}

void Context::leave_waits(uint32_t lost_peer) {
  uint64_t none = 0;
  __atomic_compare_exchange_n(&word(error_memory_)->abort, &none, uint64_t(lost_peer) + 1, false,
                              __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

PreparedLaunch::PreparedLaunch(std::shared_ptr<Context> context, const Function& function,
                               const LaunchShape& shape, std::string args, size_t place)
    : context_(std::move(context)),
      function_(&function),
      shape_(shape),
      args_(std::move(args)),
      place_(place) {
  if (args_.size() != function.args_bytes || args_.size() > kMostBytes)
    throw ConfigError("kernel " + function.name + " takes " + std::to_string(function.args_bytes) +
                      " bytes of arguments, got " + std::to_string(args_.size()) + "; most are " +
                      std::to_string(kMostBytes));
  if (place_ + kWords * sizeof(uint64_t) > args_.size())
    throw ConfigError("place=" + std::to_string(place_) + " is beyond the arguments of " + function.name);
}

bool PreparedLaunch::run(uint64_t stream, const std::array<uint64_t, kWords>& words) const {
  alignas(16) char args[kMostBytes];
  std::memcpy(args, args_.data(), args_.size());
  std::memcpy(args + place_, words.data(), sizeof words);
  context_->device().launch(*function_, shape_, stream, args);
  return context_->is_clean();
}

}  // namespace mori::core
