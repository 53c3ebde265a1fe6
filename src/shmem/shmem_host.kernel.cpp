// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// SHMEM operations that the host starts, one a launch, in stream order (docs/shmem_host.md). One block: words
// and waits by one lane, moves by the whole block. A wait that fails leaves the error word, where the host
// looks.
#include "src/shmem/shmem_host.hpp"

#include "src/shmem/shmem_device.hpp"

namespace mori {
namespace {
inline namespace MORI_TARGET_NAMESPACE {

template <class T>
inline constexpr bool kIsInteger = false;
template <>
inline constexpr bool kIsInteger<uint8_t> = true;
template <>
inline constexpr bool kIsInteger<uint16_t> = true;
template <>
inline constexpr bool kIsInteger<uint32_t> = true;
template <>
inline constexpr bool kIsInteger<uint64_t> = true;

/// The operand of width T in a word of the argument block.
template <class T>
MORI_DEVICE T operand(uint64_t bits) {
  if constexpr (sizeof(T) == 8) {
    return __builtin_bit_cast(T, bits);
  } else {
    return __builtin_bit_cast(T, uint32_t(bits));
  }
}

template <class T>
MORI_DEVICE void give(const ShmemHostArgs& a, T value) {
  if (a.out != 0) *global<T>(a.out) = value;
}

/// Operations that do not ask what the bits mean. Callers: one lane.
template <class T>
MORI_DEVICE void change_bits(const ShmemHostArgs& a) {
  T* dest = global<T>(a.dest);
  const T value = operand<T>(a.value);
  switch (a.op) {
    case ShmemHostOp::atomic_fetch:
      return give(a, shmem::atomic_fetch(a.world, dest, a.pe));
    case ShmemHostOp::atomic_set:
      return shmem::atomic_set(a.world, dest, value, a.pe);
    case ShmemHostOp::atomic_swap:
      return give(a, shmem::atomic_swap(a.world, dest, value, a.pe));
    case ShmemHostOp::atomic_compare_swap:
      return give(a, shmem::atomic_compare_swap(a.world, dest, operand<T>(a.condition), value, a.pe));
    case ShmemHostOp::atomic_fetch_and:
      return give(a, shmem::atomic_fetch_and(a.world, dest, value, a.pe));
    case ShmemHostOp::atomic_fetch_or:
      return give(a, shmem::atomic_fetch_or(a.world, dest, value, a.pe));
    case ShmemHostOp::atomic_fetch_xor:
      return give(a, shmem::atomic_fetch_xor(a.world, dest, value, a.pe));
    default:
      return give(a, shmem::atomic_fetch_add(a.world, dest, value, a.pe));
  }
}

MORI_DEVICE void change(const ShmemHostArgs& a) {
  const bool adds = a.op == ShmemHostOp::atomic_fetch_add;
  switch (a.type) {
    case ShmemType::fp32:
      if (adds)
        return give(a,
                    shmem::atomic_fetch_add(a.world, global<float>(a.dest), operand<float>(a.value), a.pe));
      return change_bits<uint32_t>(a);
    case ShmemType::fp64:
      if (adds)
        return give(a,
                    shmem::atomic_fetch_add(a.world, global<double>(a.dest), operand<double>(a.value), a.pe));
      return change_bits<uint64_t>(a);
    case ShmemType::i32:
    case ShmemType::u32:
      return change_bits<uint32_t>(a);
    default:
      return change_bits<uint64_t>(a);
  }
}

/// wait_until or test. Callers: one lane.
template <class T>
MORI_DEVICE void look(const ShmemHostArgs& a) {
  const T* word = global<const T>(a.dest);
  const shmem::Cmp compare = shmem::Cmp(a.option);
  if (a.op == ShmemHostOp::test) {
    return give(a, uint8_t(shmem::test(Thread{}, a.world, word, compare, operand<T>(a.value))));
  }
  static_cast<void>(shmem::wait_until(Thread{}, a.world, word, compare, operand<T>(a.value), a.pe));
}

MORI_DEVICE void look_at(const ShmemHostArgs& a) {
  switch (a.type) {
    case ShmemType::i32:
      return look<int32_t>(a);
    case ShmemType::u32:
      return look<uint32_t>(a);
    case ShmemType::i64:
      return look<int64_t>(a);
    default:
      return look<uint64_t>(a);
  }
}

/// Callers: one lane.
MORI_DEVICE void do_word(const ShmemHostArgs& a) {
  switch (a.op) {
    case ShmemHostOp::signal_op:
      return shmem::signal_op(a.world, global<uint64_t>(a.dest), a.value, shmem::SignalOp(a.option), a.pe);
    case ShmemHostOp::signal_fetch:
      return give(a, shmem::signal_fetch(a.world, global<const uint64_t>(a.dest)));
    case ShmemHostOp::signal_wait_until: {
      uint64_t seen = 0;
      const bool came = shmem::signal_wait_until(Thread{}, a.world, global<const uint64_t>(a.dest),
                                                 shmem::Cmp(a.option), a.value, a.pe, &seen);
      return came ? give(a, seen) : void();
    }
    case ShmemHostOp::wait_until:
    case ShmemHostOp::test:
      return look_at(a);
    case ShmemHostOp::fence:
      return shmem::fence(Thread{}, a.world);
    case ShmemHostOp::quiet:
      return shmem::quiet_all(Thread{}, a.world);
    default:
      return change(a);
  }
}

/// One instance of a reduction for all operators and both signs: they are choices in its innermost line,
/// which waits for memory. T: unsigned, or a float.
template <class T>
struct Operator {
  ShmemHostOp op;
  T sign;  ///< of integers that are signed: the bit whose change orders them as unsigned ones

  template <class V>
  MORI_DEVICE V operator()(V a, V b) const {
    if constexpr (kIsInteger<T>) {
      switch (op) {
        case ShmemHostOp::reduce_and:
          return shmem::BitAnd{}(a, b);
        case ShmemHostOp::reduce_or:
          return shmem::BitOr{}(a, b);
        case ShmemHostOp::reduce_xor:
          return shmem::BitXor{}(a, b);
        case ShmemHostOp::reduce_min:
          return V(shmem::Minimum{}(V(a ^ sign), V(b ^ sign)) ^ sign);
        case ShmemHostOp::reduce_max:
          return V(shmem::Maximum{}(V(a ^ sign), V(b ^ sign)) ^ sign);
        default:
          break;
      }
    }
    switch (op) {
      case ShmemHostOp::reduce_min:
        return shmem::Minimum{}(a, b);
      case ShmemHostOp::reduce_max:
        return shmem::Maximum{}(a, b);
      case ShmemHostOp::reduce_prod:
        return shmem::Product{}(a, b);
      default:
        return shmem::Sum{}(a, b);
    }
  }
};

/// Callers: the block. Whether all came is in the error word.
template <class T>
MORI_DEVICE void reduce(const ShmemHostArgs& a, T sign = T{}) {
  static_cast<void>(shmem::reduce(Block{shared_memory<uint32_t>()}, a.world, a.team, global<T>(a.dest),
                                  global<const T>(a.source), a.count, Operator<T>{a.op, sign}));
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace

MORI_KERNEL(shmem_host_move, ShmemHostArgs, 512) {
  const Block block{shared_memory<uint32_t>()};
  void* dest = global<void>(args.dest);
  const void* source = global<const void>(args.source);
  switch (args.op) {
    case ShmemHostOp::put:
      return shmem::putmem(block, args.world, dest, source, args.count, args.pe);
    case ShmemHostOp::get:
      return shmem::getmem(block, args.world, dest, source, args.count, args.pe);
    default:
      return shmem::putmem_signal(block, args.world, dest, source, args.count, global<uint64_t>(args.signal),
                                  args.value, shmem::SignalOp(args.option), args.pe);
  }
}

// Each by itself: together they would be too much for one kernel's scalar registers.
MORI_KERNEL(shmem_host_broadcast, ShmemHostArgs, 512) {
  static_cast<void>(shmem::broadcast(Block{shared_memory<uint32_t>()}, args.world, args.team,
                                     global<unsigned char>(args.dest),
                                     global<const unsigned char>(args.source), args.count, args.pe));
}
MORI_KERNEL(shmem_host_fcollect, ShmemHostArgs, 512) {
  static_cast<void>(shmem::fcollect(Block{shared_memory<uint32_t>()}, args.world, args.team,
                                    global<unsigned char>(args.dest),
                                    global<const unsigned char>(args.source), args.count));
}
MORI_KERNEL(shmem_host_alltoall, ShmemHostArgs, 512) {
  static_cast<void>(shmem::alltoall(Block{shared_memory<uint32_t>()}, args.world, args.team,
                                    global<unsigned char>(args.dest),
                                    global<const unsigned char>(args.source), args.count));
}

MORI_KERNEL(shmem_host_word, ShmemHostArgs, 256) {
  const Block block{shared_memory<uint32_t>()};
  if (args.op == ShmemHostOp::sync) {
    static_cast<void>(shmem::sync(block, args.world, args.team));
  } else if (args.op == ShmemHostOp::barrier) {
    static_cast<void>(shmem::barrier(block, args.world, args.team));
  } else if (block_lane() == 0) {
    do_word(args);
  }
}

// A reduction for each type: together they would be too much for one kernel's registers.
MORI_KERNEL(shmem_host_reduce_8, ShmemHostArgs, 512) {
  reduce<uint8_t>(args, args.type == ShmemType::i8 ? 0x80 : 0);
}
MORI_KERNEL(shmem_host_reduce_16, ShmemHostArgs, 512) {
  reduce<uint16_t>(args, args.type == ShmemType::i16 ? 0x8000 : 0);
}
MORI_KERNEL(shmem_host_reduce_32, ShmemHostArgs, 512) {
  reduce<uint32_t>(args, args.type == ShmemType::i32 ? 0x80000000u : 0);
}
MORI_KERNEL(shmem_host_reduce_64, ShmemHostArgs, 512) {
  reduce<uint64_t>(args, args.type == ShmemType::i64 ? uint64_t(1) << 63 : 0);
}
MORI_KERNEL(shmem_host_reduce_fp16, ShmemHostArgs, 512) { reduce<float16>(args); }
MORI_KERNEL(shmem_host_reduce_bf16, ShmemHostArgs, 512) { reduce<bfloat16>(args); }
MORI_KERNEL(shmem_host_reduce_fp32, ShmemHostArgs, 512) { reduce<float>(args); }
MORI_KERNEL(shmem_host_reduce_fp64, ShmemHostArgs, 512) { reduce<double>(args); }

}  // namespace mori
