# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Our declarations of the verbs interface have the sizes, offsets and numbers of infiniband/verbs.h."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from rdma_program import ROOT, compiler

pytestmark = pytest.mark.timeout(60)

# ours: (theirs, {our field: their field, where the names differ})
STRUCTS = {
    "DeviceAttr": "ibv_device_attr",
    "PortAttr": "ibv_port_attr",
    "GidEntry": "ibv_gid_entry",
    "Pd": "ibv_pd",
    "Mr": "ibv_mr",
    "Channel": "ibv_comp_channel",
    "Cq": "ibv_cq",
    "Wc": "ibv_wc",
    "GlobalRoute": "ibv_global_route",
    "AddressHandle": "ibv_ah_attr",
    "QpCap": "ibv_qp_cap",
    "QpInitAttr": "ibv_qp_init_attr",
    "QpAttr": "ibv_qp_attr",
    "Qp": "ibv_qp",
    "Sge": "ibv_sge",
    "SendWr": "ibv_send_wr",
    "AsyncEvent": "ibv_async_event",
    "ContextOps": "ibv_context_ops",
    "Context": "ibv_context",
}
FIELDS = {
    "DeviceAttr": "vendor_id atomic_cap max_mr_size max_qp max_qp_wr max_sge max_sge_rd max_cqe max_qp_rd_atom "
    "max_qp_init_rd_atom max_pkeys phys_port_cnt",
    "PortAttr": "state max_mtu active_mtu gid_tbl_len max_msg_sz lid link_layer flags",
    "GidEntry": "gid gid_index gid_type",
    "Mr": "addr length lkey rkey",
    "Channel": "fd",
    "Cq": "context channel cqe",
    "Wc": "wr_id status opcode vendor_err byte_len qp_num wc_flags",
    "GlobalRoute": "dgid sgid_index hop_limit traffic_class",
    "AddressHandle": "grh dlid sl is_global port_num",
    "QpCap": "max_send_wr max_recv_wr max_send_sge max_recv_sge max_inline_data",
    "QpInitAttr": "send_cq recv_cq srq cap qp_type sq_sig_all",
    "QpAttr": "qp_state path_mtu rq_psn sq_psn dest_qp_num qp_access_flags ah_attr pkey_index max_rd_atomic "
    "max_dest_rd_atomic min_rnr_timer port_num timeout retry_cnt rnr_retry rate_limit",
    "Qp": "context send_cq qp_num state",
    "Sge": "addr length lkey",
    "SendWr": "wr_id next sg_list num_sge opcode send_flags imm_data",
    "AsyncEvent": "element event_type",
    "ContextOps": "poll_cq req_notify_cq post_send",
    "Context": "device ops cmd_fd async_fd num_comp_vectors",
}
NUMBERS = {
    "kPortDown": "IBV_PORT_DOWN",
    "kPortActive": "IBV_PORT_ACTIVE",
    "kMtu256": "IBV_MTU_256",
    "kMtu4096": "IBV_MTU_4096",
    "kLayerInfiniband": "IBV_LINK_LAYER_INFINIBAND",
    "kLayerEthernet": "IBV_LINK_LAYER_ETHERNET",
    "kGidRoceV1": "IBV_GID_TYPE_ROCE_V1",
    "kGidRoceV2": "IBV_GID_TYPE_ROCE_V2",
    "kInit": "IBV_QPS_INIT",
    "kReadyToReceive": "IBV_QPS_RTR",
    "kReadyToSend": "IBV_QPS_RTS",
    "kError": "IBV_QPS_ERR",
    "kReliableConnected": "IBV_QPT_RC",
    "kWrite": "IBV_WR_RDMA_WRITE",
    "kRead": "IBV_WR_RDMA_READ",
    "kCompareSwap": "IBV_WR_ATOMIC_CMP_AND_SWP",
    "kFetchAdd": "IBV_WR_ATOMIC_FETCH_AND_ADD",
    "kFence": "IBV_SEND_FENCE",
    "kSignaled": "IBV_SEND_SIGNALED",
    "kInline": "IBV_SEND_INLINE",
    "kLocalWrite": "IBV_ACCESS_LOCAL_WRITE",
    "kRemoteWrite": "IBV_ACCESS_REMOTE_WRITE",
    "kRemoteRead": "IBV_ACCESS_REMOTE_READ",
    "kRemoteAtomic": "IBV_ACCESS_REMOTE_ATOMIC",
    "kMaskState": "IBV_QP_STATE",
    "kMaskAccess": "IBV_QP_ACCESS_FLAGS",
    "kMaskPkeyIndex": "IBV_QP_PKEY_INDEX",
    "kMaskPort": "IBV_QP_PORT",
    "kMaskPath": "IBV_QP_AV",
    "kMaskPathMtu": "IBV_QP_PATH_MTU",
    "kMaskTimeout": "IBV_QP_TIMEOUT",
    "kMaskRetry": "IBV_QP_RETRY_CNT",
    "kMaskRnrRetry": "IBV_QP_RNR_RETRY",
    "kMaskRqPsn": "IBV_QP_RQ_PSN",
    "kMaskReadDepth": "IBV_QP_MAX_QP_RD_ATOMIC",
    "kMaskMinRnrTimer": "IBV_QP_MIN_RNR_TIMER",
    "kMaskSqPsn": "IBV_QP_SQ_PSN",
    "kMaskServeDepth": "IBV_QP_MAX_DEST_RD_ATOMIC",
    "kMaskDestQp": "IBV_QP_DEST_QPN",
    "kWcSuccess": "IBV_WC_SUCCESS",
    "kWcLocLen": "IBV_WC_LOC_LEN_ERR",
    "kWcLocQpOp": "IBV_WC_LOC_QP_OP_ERR",
    "kWcLocProt": "IBV_WC_LOC_PROT_ERR",
    "kWcFlush": "IBV_WC_WR_FLUSH_ERR",
    "kWcLocAccess": "IBV_WC_LOC_ACCESS_ERR",
    "kWcRemInvReq": "IBV_WC_REM_INV_REQ_ERR",
    "kWcRemAccess": "IBV_WC_REM_ACCESS_ERR",
    "kWcRemOp": "IBV_WC_REM_OP_ERR",
    "kWcRetryExc": "IBV_WC_RETRY_EXC_ERR",
    "kWcRnrRetryExc": "IBV_WC_RNR_RETRY_EXC_ERR",
    "kWcRemAbort": "IBV_WC_REM_ABORT_ERR",
    "kWcFatal": "IBV_WC_FATAL_ERR",
    "kWcRespTimeout": "IBV_WC_RESP_TIMEOUT_ERR",
    "kWcGeneral": "IBV_WC_GENERAL_ERR",
    "kEventCqError": "IBV_EVENT_CQ_ERR",
    "kEventQpFatal": "IBV_EVENT_QP_FATAL",
    "kEventQpRequest": "IBV_EVENT_QP_REQ_ERR",
    "kEventQpAccess": "IBV_EVENT_QP_ACCESS_ERR",
    "kEventDeviceFatal": "IBV_EVENT_DEVICE_FATAL",
    "kEventPortActive": "IBV_EVENT_PORT_ACTIVE",
    "kEventPortError": "IBV_EVENT_PORT_ERR",
}


def comparison(numbers: dict[str, str]) -> str:
    lines = ["#include <infiniband/verbs.h>", '#include "src/transport/verbs/abi.hpp"']
    lines += ["namespace v = mori::verbs;"]
    for ours, theirs in STRUCTS.items():
        lines.append(f'static_assert(sizeof(v::{ours}) == sizeof({theirs}), "size of {ours}");')
        for field in FIELDS.get(ours, "").split():
            lines.append(
                f"static_assert(offsetof(v::{ours}, {field}) == offsetof({theirs}, {field}) && "
                f'sizeof(v::{ours}::{field}) == sizeof({theirs}::{field}), "{ours}.{field}");'
            )
    for field in ("remote_addr", "rkey"):
        lines.append(f"static_assert(offsetof(v::SendWr, rdma.{field}) == offsetof(ibv_send_wr, wr.rdma.{field}));")
    for field in ("remote_addr", "compare_add", "swap", "rkey"):
        lines.append(f"static_assert(offsetof(v::SendWr, atomic.{field}) == offsetof(ibv_send_wr, wr.atomic.{field}));")
    lines += [f'static_assert(long(v::{ours}) == long({theirs}), "{ours}");' for ours, theirs in numbers.items()]
    return "\n".join(lines) + "\n"


def compile_text(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    source = folder / "abi.cpp"
    source.write_text(text)
    command = [
        compiler() or "g++",
        "-std=c++20",
        "-fsyntax-only",
        "-Wno-invalid-offsetof",
        "-I",
        str(ROOT),
        str(source),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)


@pytest.fixture(autouse=True)
def needs_header() -> None:
    if compiler() is None or not Path("/usr/include/infiniband/verbs.h").exists():
        pytest.skip("needs g++ and infiniband/verbs.h (apt-get install libibverbs-dev)")


def test_layouts_and_numbers(tmp_path: Path) -> None:
    done = compile_text(comparison(NUMBERS), tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_difference_is_found(tmp_path: Path) -> None:
    done = compile_text(comparison({"kWrite": "IBV_WR_SEND"}), tmp_path)
    assert done.returncode != 0 and "kWrite" in done.stderr
