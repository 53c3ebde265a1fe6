// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The numbers of mori.shmem's host operations. Their kernels are launched through Device.launch.
#include <pybind11/pybind11.h>

#include "src/shmem/shmem_host.hpp"

namespace py = pybind11;

void bind_shmem(py::module_& module) {
  using mori::ShmemHostOp;
  using mori::ShmemType;
  py::enum_<mori::shmem::Cmp>(module, "ShmemCmp")
      .value("eq", mori::shmem::Cmp::eq)
      .value("ne", mori::shmem::Cmp::ne)
      .value("gt", mori::shmem::Cmp::gt)
      .value("ge", mori::shmem::Cmp::ge)
      .value("lt", mori::shmem::Cmp::lt)
      .value("le", mori::shmem::Cmp::le);
  py::enum_<mori::shmem::SignalOp>(module, "ShmemSignalOp")
      .value("set", mori::shmem::SignalOp::set)
      .value("add", mori::shmem::SignalOp::add);
  py::enum_<ShmemType>(module, "ShmemType")
      .value("u8", ShmemType::u8)
      .value("i8", ShmemType::i8)
      .value("i16", ShmemType::i16)
      .value("i32", ShmemType::i32)
      .value("i64", ShmemType::i64)
      .value("u16", ShmemType::u16)
      .value("u32", ShmemType::u32)
      .value("u64", ShmemType::u64)
      .value("fp16", ShmemType::fp16)
      .value("bf16", ShmemType::bf16)
      .value("fp32", ShmemType::fp32)
      .value("fp64", ShmemType::fp64);
  py::enum_<ShmemHostOp>(module, "ShmemHostOp")
      .value("put", ShmemHostOp::put)
      .value("get", ShmemHostOp::get)
      .value("put_signal", ShmemHostOp::put_signal)
      .value("broadcast", ShmemHostOp::broadcast)
      .value("fcollect", ShmemHostOp::fcollect)
      .value("alltoall", ShmemHostOp::alltoall)
      .value("signal_op", ShmemHostOp::signal_op)
      .value("signal_fetch", ShmemHostOp::signal_fetch)
      .value("signal_wait_until", ShmemHostOp::signal_wait_until)
      .value("wait_until", ShmemHostOp::wait_until)
      .value("test", ShmemHostOp::test)
      .value("fence", ShmemHostOp::fence)
      .value("quiet", ShmemHostOp::quiet)
      .value("sync", ShmemHostOp::sync)
      .value("barrier", ShmemHostOp::barrier)
      .value("atomic_fetch", ShmemHostOp::atomic_fetch)
      .value("atomic_set", ShmemHostOp::atomic_set)
      .value("atomic_swap", ShmemHostOp::atomic_swap)
      .value("atomic_compare_swap", ShmemHostOp::atomic_compare_swap)
      .value("atomic_fetch_add", ShmemHostOp::atomic_fetch_add)
      .value("atomic_fetch_and", ShmemHostOp::atomic_fetch_and)
      .value("atomic_fetch_or", ShmemHostOp::atomic_fetch_or)
      .value("atomic_fetch_xor", ShmemHostOp::atomic_fetch_xor)
      .value("reduce_min", ShmemHostOp::reduce_min)
      .value("reduce_max", ShmemHostOp::reduce_max)
      .value("reduce_sum", ShmemHostOp::reduce_sum)
      .value("reduce_prod", ShmemHostOp::reduce_prod)
      .value("reduce_and", ShmemHostOp::reduce_and)
      .value("reduce_or", ShmemHostOp::reduce_or)
      .value("reduce_xor", ShmemHostOp::reduce_xor);
  module.attr("SHMEM_ANY_PE") = mori::shmem::kAnyPe;
}
