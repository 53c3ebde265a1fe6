// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
#include "src/shmem/shmem_barrier.hpp"

#include <algorithm>
#include <string>

namespace mori::shmem {
namespace {

constexpr uint32_t kMaxThreads = 256;  // the kernel's launch bound

}  // namespace

StreamBarrier::StreamBarrier(std::shared_ptr<core::Context> context, uint64_t heap_offset)
    : context_(std::move(context)) {
  if (heap_offset % 8 != 0) {
    throw core::ConfigError("heap_offset=" + std::to_string(heap_offset) + " must be a multiple of 8");
  }
  core::Device& device = context_->device();
  kernel_ = &device.function("shmem_barrier", "shmem_barrier", sizeof(BarrierArgs));
  const World& world = context_->world();
  const Team all{.signals = heap_offset,
                 .workspace = 0,
                 .workspace_bytes = 0,
                 .start = 0,
                 .stride = 1,
                 .size = world.world_size,
                 .index = world.rank};
  args_ = {.world = world, .team = all};
  const uint32_t lanes = device.properties().warp_size;
  // A lane of the fast CPU target is a whole fiber and its loads are cheap: one is enough.
  const uint32_t wanted = lanes == 1 ? 1 : (args_.world.world_size + lanes - 1) / lanes;
  shape_ = {.blocks = 1, .warps = std::min(wanted, kMaxThreads / lanes), .shared_bytes = sizeof(uint32_t)};
}

void StreamBarrier::launch(uint64_t stream) const {
  context_->device().launch(*kernel_, shape_, stream, &args_);
}

}  // namespace mori::shmem
