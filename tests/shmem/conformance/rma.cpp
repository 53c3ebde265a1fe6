// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Puts and gets of every form, each case on memory of its own.
#include "conformance.hpp"

namespace mori {

struct RmaCase {
  uint64_t op, type;
  uint64_t dest, source;  // addresses; 0 where the operation must not look
  uint64_t nelems;
  int64_t dst, sst;  // strides of iput and iget
  uint64_t pe;
  uint64_t flags;
  uint64_t signal_at, signal, signal_op;
  uint64_t there;  // address here of what a get reads
  uint64_t wrong;  // address of a uint64_t: elements that a lane found wrong after a blocking get
};

namespace conformance {
namespace {
inline namespace MORI_TARGET_NAMESPACE {

enum class Rma : uint64_t {
  put,
  put_nbi,
  putmem,
  putmem_nbi,
  get,
  get_nbi,
  getmem,
  getmem_nbi,
  p,
  g,
  iput,
  iput_nbi,
  iget,
  iget_nbi,
  put_signal,
  put_signal_nbi,
  putmem_signal,
  putmem_signal_nbi,
  signal_op
};
constexpr uint64_t kOverwriteSource = 1;  // a blocking put has returned: any lane may write the source
constexpr uint64_t kLookAtDest = 2;       // a blocking get has returned: every lane sees all of it

template <class Group, class T>
MORI_DEVICE_NOINLINE void run_rma(const Group& group, const shmem::Ctx& ctx, const RmaCase& c, T*) {
  T* dest = global<T>(c.dest);
  const T* source = global<const T>(c.source);
  const size_t n = c.nelems, bytes = c.nelems * sizeof(T);
  const uint32_t pe = uint32_t(c.pe);
  uint64_t* signal_at = global<uint64_t>(c.signal_at);
  const auto signal_op = shmem::SignalOp(c.signal_op);
  const auto dst = ptrdiff_t(c.dst), sst = ptrdiff_t(c.sst);
  switch (Rma(c.op)) {
    case Rma::put:
      shmem::put(group, ctx, dest, source, n, pe);
      break;
    case Rma::put_nbi:
      shmem::put_nbi(group, ctx, dest, source, n, pe);
      break;
    case Rma::putmem:
      shmem::putmem(group, ctx, dest, source, bytes, pe);
      break;
    case Rma::putmem_nbi:
      shmem::putmem_nbi(group, ctx, dest, source, bytes, pe);
      break;
    case Rma::get:
      shmem::get(group, ctx, dest, source, n, pe);
      break;
    case Rma::get_nbi:
      shmem::get_nbi(group, ctx, dest, source, n, pe);
      break;
    case Rma::getmem:
      shmem::getmem(group, ctx, dest, source, bytes, pe);
      break;
    case Rma::getmem_nbi:
      shmem::getmem_nbi(group, ctx, dest, source, bytes, pe);
      break;
    case Rma::p:
      if (group.lane() == 0) shmem::p(ctx, dest, *source, pe);
      break;
    case Rma::g:
      if (group.lane() == 0) *dest = shmem::g(ctx, source, pe);
      break;
    case Rma::iput:
      shmem::iput(group, ctx, dest, source, dst, sst, n, pe);
      break;
    case Rma::iput_nbi:
      shmem::iput_nbi(group, ctx, dest, source, dst, sst, n, pe);
      break;
    case Rma::iget:
      shmem::iget(group, ctx, dest, source, dst, sst, n, pe);
      break;
    case Rma::iget_nbi:
      shmem::iget_nbi(group, ctx, dest, source, dst, sst, n, pe);
      break;
    case Rma::put_signal:
      shmem::put_signal(group, ctx, dest, source, n, signal_at, c.signal, signal_op, pe);
      break;
    case Rma::put_signal_nbi:
      shmem::put_signal_nbi(group, ctx, dest, source, n, signal_at, c.signal, signal_op, pe);
      break;
    case Rma::putmem_signal:
      shmem::putmem_signal(group, ctx, dest, source, bytes, signal_at, c.signal, signal_op, pe);
      break;
    case Rma::putmem_signal_nbi:
      shmem::putmem_signal_nbi(group, ctx, dest, source, bytes, signal_at, c.signal, signal_op, pe);
      break;
    case Rma::signal_op:
      if (group.lane() == 0) shmem::signal_op(ctx, signal_at, c.signal, signal_op, pe);
      break;
  }
  // Lanes take other elements than the operation gave them, so that a lane that came back early is noticed.
  const uint32_t lane = (group.lane() + 1) % group.lanes();
  if ((c.flags & kOverwriteSource) != 0) {
    for (size_t i = lane; i < bytes; i += group.lanes()) global<unsigned char>(c.source)[i] ^= 0xFF;
  }
  if ((c.flags & kLookAtDest) != 0) {
    const unsigned char* there = global<const unsigned char>(c.there);
    const unsigned char* here = reinterpret_cast<const unsigned char*>(dest);
    uint64_t wrong = 0;
    for (size_t i = 0; i < n; ++i) {
      for (size_t b = 0; b < sizeof(T); ++b) {
        wrong += here[i * size_t(dst) * sizeof(T) + b] != there[i * size_t(sst) * sizeof(T) + b];
      }
    }
    if (wrong != 0) fetch_add_relaxed<Scope::device>(global<uint64_t>(c.wrong), wrong);
  }
  shmem::quiet(group, ctx);
}

}  // namespace MORI_TARGET_NAMESPACE
}  // namespace
}  // namespace conformance

MORI_KERNEL(conformance_rma, CasesArgs, 256) {
  const shmem::Ctx ctx{args.world, args.queue};
  const RmaCase* cases = global<const RmaCase>(args.cases);
  conformance::by_scope(args.scope, [&](auto group, uint32_t first, uint32_t step) {
    for (uint64_t i = first; i < args.count; i += step) {
      conformance::with_type(conformance::RmaTypes{}, cases[i].type,
                             [&](auto* type) { conformance::run_rma(group, ctx, cases[i], type); });
    }
  });
}

}  // namespace mori
