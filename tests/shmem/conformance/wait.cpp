// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Waits and tests. A launch is of two halves: first this rank's groups write words of others, then they wait
// for their own, so that words come while somebody waits for them.
#include "conformance.hpp"

namespace mori {

struct WaitCase {
  uint64_t op, type, cmp;
  uint64_t ivars, nelems, status, values;  // addresses; status may be 0
  uint64_t value;                          // bits
  uint64_t from_pe;
  uint64_t indices;  // size_t[nelems]
  uint64_t out;      // WaitResult
};

/// Written by lane 0 of the group, `agreed` by all: lanes whose answer is `answer`.
struct WaitResult {
  uint64_t answer, number, agreed, lanes;
};

struct WaitArgs {
  World world;
  uint64_t writes;  // WordWrite[write_count]
  uint64_t write_count;
  uint64_t cases;
  uint64_t count;
  uint32_t scope;
  uint32_t queue;
};

/// One word of 4 or 8 bytes at `pe`, written by p, an atomic set, or a put of one element.
struct WordWrite {
  uint64_t dest, value, pe, bytes, how;
};

namespace conformance {
namespace {
inline namespace MORI_TARGET_NAMESPACE {

enum class Op : uint64_t {
  wait,
  test,
  wait_all,
  wait_any,
  wait_some,
  test_all,
  test_any,
  test_some,
  wait_all_vector,
  wait_any_vector,
  wait_some_vector,
  test_all_vector,
  test_any_vector,
  test_some_vector,
  signal_wait,
  signal_fetch
};

template <class Group, class T>
MORI_DEVICE_NOINLINE void run_wait(const Group& group, const shmem::Ctx& ctx, const WaitCase& c, T*) {
  const T* ivars = global<const T>(c.ivars);
  const T* values = global<const T>(c.values);
  const int* status = global<const int>(c.status);
  size_t* indices = global<size_t>(c.indices);
  const T value = T(c.value);
  const auto cmp = shmem::Cmp(c.cmp);
  const size_t n = c.nelems;
  const uint32_t from = uint32_t(c.from_pe);
  uint64_t answer = 0;
  size_t number = 77;  // stays when a wait fails
  switch (Op(c.op)) {
    case Op::wait:
      answer = shmem::wait_until(group, ctx, ivars, cmp, value, from);
      break;
    case Op::test:
      answer = shmem::test(group, ctx, ivars, cmp, value);
      break;
    case Op::wait_all:
      answer = shmem::wait_until_all(group, ctx, ivars, n, status, cmp, value);
      break;
    case Op::wait_any:
      answer = shmem::wait_until_any(group, ctx, ivars, n, status, cmp, value, number);
      break;
    case Op::wait_some:
      answer = shmem::wait_until_some(group, ctx, ivars, n, indices, status, cmp, value, number);
      break;
    case Op::test_all:
      answer = shmem::test_all(group, ctx, ivars, n, status, cmp, value);
      break;
    case Op::test_any:
      answer = 1, number = shmem::test_any(group, ctx, ivars, n, status, cmp, value);
      break;
    case Op::test_some:
      answer = 1, number = shmem::test_some(group, ctx, ivars, n, indices, status, cmp, value);
      break;
    case Op::wait_all_vector:
      answer = shmem::wait_until_all_vector(group, ctx, ivars, n, status, cmp, values);
      break;
    case Op::wait_any_vector:
      answer = shmem::wait_until_any_vector(group, ctx, ivars, n, status, cmp, values, number);
      break;
    case Op::wait_some_vector:
      answer = shmem::wait_until_some_vector(group, ctx, ivars, n, indices, status, cmp, values, number);
      break;
    case Op::test_all_vector:
      answer = shmem::test_all_vector(group, ctx, ivars, n, status, cmp, values);
      break;
    case Op::test_any_vector:
      answer = 1, number = shmem::test_any_vector(group, ctx, ivars, n, status, cmp, values);
      break;
    case Op::test_some_vector:
      answer = 1, number = shmem::test_some_vector(group, ctx, ivars, n, indices, status, cmp, values);
      break;
    case Op::signal_wait: {
      uint64_t seen = 77;
      answer =
          shmem::signal_wait_until(group, ctx, global<const uint64_t>(c.ivars), cmp, c.value, from, &seen);
      number = seen;
      break;
    }
    case Op::signal_fetch:
      answer = 1, number = shmem::signal_fetch(ctx, global<const uint64_t>(c.ivars));
      break;
  }
  auto* result = global<WaitResult>(c.out);
  if (group.lane() == 0) {
    result->answer = answer;
    result->number = number;
    result->lanes = group.lanes();
  }
  group.sync();
  const bool same = result->answer == answer && result->number == number;
  fetch_add_relaxed<Scope::device>(&result->agreed, uint64_t(same));
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace
}  // namespace conformance

MORI_KERNEL(conformance_wait, WaitArgs, 256) {
  const shmem::Ctx ctx{args.world, args.queue};
  const WordWrite* writes = global<const WordWrite>(args.writes);
  const WaitCase* cases = global<const WaitCase>(args.cases);
  const uint64_t lanes = uint64_t(grid_blocks()) * block_lanes();
  for (uint64_t i = uint64_t(block_id()) * block_lanes() + block_lane(); i < args.write_count; i += lanes) {
    const WordWrite& w = writes[i];
    const uint32_t pe = uint32_t(w.pe);
    const auto word = uint32_t(w.value);
    if (w.bytes == 4) {
      if (w.how == 0) shmem::p(ctx, global<uint32_t>(w.dest), word, pe);
      if (w.how == 1) shmem::atomic_set(ctx, global<uint32_t>(w.dest), word, pe);
      if (w.how == 2) shmem::put(Thread{}, ctx, global<uint32_t>(w.dest), &word, 1, pe);
    } else {
      if (w.how == 0) shmem::p(ctx, global<uint64_t>(w.dest), w.value, pe);
      if (w.how == 1) shmem::atomic_set(ctx, global<uint64_t>(w.dest), w.value, pe);
      if (w.how == 2) shmem::signal_op(ctx, global<uint64_t>(w.dest), w.value, shmem::SignalOp::set, pe);
    }
  }
  sync_block();
  conformance::by_scope(args.scope, [&](auto group, uint32_t first, uint32_t step) {
    for (uint64_t i = first; i < args.count; i += step) {
      conformance::with_type(conformance::WaitTypes{}, cases[i].type,
                             [&](auto* type) { conformance::run_wait(group, ctx, cases[i], type); });
    }
  });
}

}  // namespace mori
