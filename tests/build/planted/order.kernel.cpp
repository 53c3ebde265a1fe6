// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Kernels with one fault each, and the same without, so that the checks of tools/isa_check.py are known to
// find them. Not part of the library.
#include "src/core/device/prelude.hpp"

namespace mori {
struct OrderArgs {
  World world;
  uint64_t payload, flag;
};

MORI_DEVICE void write_payload(const OrderArgs& a) {
  global<uint64_t>(a.payload)[block_lane()] = block_lane();
}

MORI_KERNEL(good_put, OrderArgs, 256) {
  write_payload(args);
  sync_block();
  if (block_lane() == 0) store_release<Scope::system>(global<uint64_t>(args.flag), uint64_t(1));
}

// Nothing of this lane's wave is in flight here: where clang would leave the wait out.
MORI_KERNEL(good_flag_only, OrderArgs, 256) {
  if (block_lane() == 0) store_release<Scope::system>(global<uint64_t>(args.flag), uint64_t(1));
}

MORI_KERNEL(good_wait, OrderArgs, 256) {
  if (block_lane() == 0) wait_until(args.world, global<uint64_t>(args.flag), 1, Wait::signal, 0);
  sync_block();
  global<uint64_t>(args.payload)[block_lane()] += 1;
}

MORI_KERNEL(bad_relaxed_flag, OrderArgs, 256) {
  write_payload(args);
  sync_block();
  if (block_lane() == 0) store_relaxed<Scope::system>(global<uint64_t>(args.flag), uint64_t(1));
}

MORI_KERNEL(bad_device_flag, OrderArgs, 256) {
  write_payload(args);
  sync_block();
  if (block_lane() == 0) store_release<Scope::device>(global<uint64_t>(args.flag), uint64_t(1));
}

MORI_KERNEL(bad_relaxed_wait, OrderArgs, 256) {
  if (block_lane() == 0) {
    while (load_relaxed<Scope::system>(global<uint64_t>(args.flag)) == 0) pause(0);
  }
  sync_block();
  global<uint64_t>(args.payload)[block_lane()] += 1;
}

MORI_KERNEL(bad_generic_pointer, OrderArgs, 256) {
  // out of memory, not out of the argument block, and without global<T>(): could be any address space
  uint64_t** pointers = reinterpret_cast<uint64_t**>(args.payload);
  *pointers[block_lane()] = 1;
}

#if defined(__HIP__)
MORI_KERNEL(bad_open_barrier, OrderArgs, 256) {
  write_payload(args);
  __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
  __builtin_amdgcn_s_barrier();
  __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
  if (block_lane() == 0) store_release<Scope::system>(global<uint64_t>(args.flag), uint64_t(1));
}
#else
MORI_KERNEL(bad_bare_fence, OrderArgs, 256) {
  write_payload(args);
  asm volatile("fence.acq_rel.sys;" ::: "memory");
  if (block_lane() == 0) *reinterpret_cast<volatile uint64_t*>(args.flag) = 1;
}
#endif
}  // namespace mori
