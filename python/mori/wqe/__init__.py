# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Work-queue entries, doorbells and completions of RDMA NICs, to and from JSON lines (`mori wqe`).

A record describes one request (`"kind": "post"`) or one completion (`"kind": "cqe"`) of a queue pair; numbers are
decimal, bytes are hex. docs/nic_mlx5.md, docs/nic_bnxt_re.md and docs/nic_ionic.md have the layouts.
"""

from mori.wqe._encode import encode
from mori.wqe._explain import decode

__all__ = ["decode", "encode"]
