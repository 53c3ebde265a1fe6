# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Expert-parallel dispatch and combine for mixture-of-experts layers.

    moe = mori.ep.Dispatcher(ctx, hidden=7168, num_experts=256, topk=8, max_tokens=4096)
    recv = moe.dispatch(x, topk_ids, topk_weights)
    y = moe.combine(expert(recv.x), recv.routing)

docs/ep.md tells the protocol, and what can go wrong.
"""

from mori.ep._calls import trace_buffer
from mori.ep._dispatcher import Dispatcher, combine, dispatch
from mori.ep._ops import register_ops
from mori.ep._recipe import RECIPES, Quantize
from mori.ep._results import Received, RoutingHandle, Trimmed

__all__ = [
    "RECIPES",
    "Dispatcher",
    "Quantize",
    "Received",
    "RoutingHandle",
    "Trimmed",
    "combine",
    "dispatch",
    "register_ops",
    "trace_buffer",
]

for _public in (Dispatcher, Quantize, Received, RoutingHandle, Trimmed, combine, dispatch):
    _public.__module__ = "mori.ep"
