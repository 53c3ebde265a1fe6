// SPDX-FileCopyrightText: 2026 The MoRI authors
// SPDX-License-Identifier: MIT
//
// Our numbers of mlx5 against the public header's. Compiled by test_mlx5_header.py; nothing runs.
#include <infiniband/mlx5dv.h>

#include "src/transport/ibgda/providers/mlx5/mlx5.hpp"

using mori::ibgda::Mlx5;

static_assert(Mlx5::kUnit == MLX5_SEND_WQE_BB);
static_assert(sizeof(mlx5_wqe_ctrl_seg) == 16 && offsetof(mlx5_wqe_ctrl_seg, opmod_idx_opcode) == 0);
static_assert(offsetof(mlx5_wqe_ctrl_seg, qpn_ds) == 4 && offsetof(mlx5_wqe_ctrl_seg, signature) == 8);
static_assert(offsetof(mlx5_wqe_ctrl_seg, fm_ce_se) == 11 && offsetof(mlx5_wqe_ctrl_seg, imm) == 12);
static_assert(sizeof(mlx5_wqe_raddr_seg) == 16 && offsetof(mlx5_wqe_raddr_seg, rkey) == 8);
static_assert(sizeof(mlx5_wqe_data_seg) == 16 && offsetof(mlx5_wqe_data_seg, lkey) == 4);
static_assert(offsetof(mlx5_wqe_data_seg, addr) == 8);
static_assert(sizeof(mlx5_wqe_atomic_seg) == 16 && offsetof(mlx5_wqe_atomic_seg, compare) == 8);
static_assert(sizeof(mlx5_wqe_inl_data_seg) == 4 && uint32_t(MLX5_INLINE_SEG) == Mlx5::kInlineBit);
static_assert(sizeof(mlx5_cqe64) == Mlx5::kCompletionBytes);
static_assert(offsetof(mlx5_cqe64, sop_drop_qpn) == 0x38 && offsetof(mlx5_cqe64, wqe_counter) == 0x3c);
static_assert(offsetof(mlx5_cqe64, op_own) == 0x3f && offsetof(mlx5_cqe64, byte_cnt) == 0x2c);
static_assert(offsetof(mlx5_err_cqe, vendor_err_synd) == 0x36 && offsetof(mlx5_err_cqe, syndrome) == 0x37);

static_assert(MLX5_OPCODE_NOP == Mlx5::kNop && MLX5_OPCODE_RDMA_READ == Mlx5::kRead);
static_assert(MLX5_OPCODE_RDMA_WRITE == Mlx5::kWrite && MLX5_OPCODE_RDMA_WRITE_IMM == Mlx5::kWriteImm);
static_assert(MLX5_OPCODE_SEND == Mlx5::kSend && MLX5_OPCODE_SEND_IMM == Mlx5::kSendImm);
static_assert(MLX5_OPCODE_ATOMIC_CS == Mlx5::kCompareSwap && MLX5_OPCODE_ATOMIC_FA == Mlx5::kFetchAdd);
static_assert(MLX5_OPCODE_ATOMIC_MASKED_CS == Mlx5::kMaskedCompareSwap);
static_assert(MLX5_OPCODE_ATOMIC_MASKED_FA == Mlx5::kMaskedFetchAdd);
static_assert(MLX5_WQE_CTRL_CQ_UPDATE == Mlx5::kCompleteBit &&
              MLX5_WQE_CTRL_SOLICITED == Mlx5::kSolicitedBit);
static_assert(uint32_t(MLX5_CQE_REQ) == Mlx5::kRequester &&
              uint32_t(MLX5_CQE_REQ_ERR) == Mlx5::kRequesterError);
static_assert(uint32_t(MLX5_CQE_RESP_ERR) == Mlx5::kResponderError &&
              uint32_t(MLX5_CQE_INVALID) == Mlx5::kInvalid);

int main() {}
