// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// The part of libmlx5's direct verbs that we use, declared by ourselves as in src/transport/verbs/abi.hpp.
// tests/ibgda/test_queue_control.py compares it with infiniband/mlx5dv.h.
#pragma once
#include <sys/types.h>

#include <cstdint>

#include "src/transport/verbs/abi.hpp"

namespace mori::ibgda::mlx5dv {

enum ObjectType : uint64_t { kQp = 1, kCq = 2 };

struct Qp {
  uint32_t* dbrec;
  struct {
    void* buf;
    uint32_t wqe_cnt;
    uint32_t stride;
  } sq, rq;
  struct {
    void* reg;
    uint32_t size;
  } bf;
  uint64_t comp_mask;
  off_t uar_mmap_offset;
  uint32_t tirn;
  uint32_t tisn;
  uint32_t rqn;
  uint32_t sqn;
  uint64_t tir_icm_addr;
};

struct Cq {
  void* buf;
  uint32_t* dbrec;
  uint32_t cqe_cnt;
  uint32_t cqe_size;
  void* cq_uar;
  uint32_t cqn;
  uint64_t comp_mask;
};

struct Object {
  struct {
    verbs::Qp* in;
    Qp* out;
  } qp;
  struct {
    verbs::Cq* in;
    Cq* out;
  } cq;
  struct {
    void* in;
    void* out;
  } others[5];
};

}  // namespace mori::ibgda::mlx5dv
