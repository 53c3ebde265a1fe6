# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""From the arguments of a call to a call that can be launched: everything is checked before anything is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mori import _core
from mori.ep._calls import CombineCall, DispatchCall
from mori.ep._check import check_launch_number, check_tensor
from mori.ep._plan import wire_of
from mori.ep._results import Received, RoutingHandle
from mori.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from mori.ep._dispatcher import Dispatcher

__all__ = ["prepare_combine", "prepare_dispatch"]


def prepare_dispatch(
    moe: Dispatcher,
    x: torch.Tensor,
    topk_ids: torch.Tensor | None,
    topk_weights: torch.Tensor | None,
    scales: torch.Tensor | None,
    routing: RoutingHandle | None,
    active: torch.Tensor | None,
    blocks: int,
    trace: torch.Tensor | None,
) -> DispatchCall:
    """Checks everything, takes a buffer, and gives the call, not launched yet."""
    import torch

    moe._check_usable(DispatchCall)
    plan = moe.plan
    copies = None
    if routing is not None:
        if topk_ids is not None or topk_weights is not None:
            raise ConfigError("topk_ids and topk_weights come from routing; do not pass both")
        moe._check_owner(routing)
        topk_ids, topk_weights, copies = routing.topk_ids, routing.topk_weights, routing.copies
    if topk_ids is None:
        raise ConfigError("topk_ids is missing; pass it, or routing of an earlier dispatch")
    elements = plan.hidden if plan.recipe is not None else plan.row_elements
    tokens = check_tensor(moe.ctx.device, "x", x, (None, elements), (plan.dtype,))
    if tokens > plan.max_tokens:
        raise ConfigError(f"x has {tokens} tokens, max_tokens is {plan.max_tokens}")
    if routing is not None and tokens != routing.tokens:
        raise ConfigError(f"x has {tokens} tokens, routing is of {routing.tokens}")
    check_tensor(moe.ctx.device, "topk_ids", topk_ids, (tokens, plan.topk), moe._id_types)
    if topk_weights is not None:
        check_tensor(moe.ctx.device, "topk_weights", topk_weights, (tokens, plan.topk), (torch.float32,))
    if (scales is not None) != (plan.scales is not None):
        need = "has none" if plan.scales is None else f"was made with {plan.scales}"
        raise ConfigError(f"scales={'given' if scales is not None else None}: the dispatcher {need}")
    if scales is not None and plan.scales is not None:
        check_tensor(moe.ctx.device, "scales", scales, (tokens, plan.scales[0]), (plan.scales[1],))
    active = _participants(moe, active, blocks, trace)
    if copies is None and moe.chooser is not None:
        copies = moe.chooser.copies(topk_ids)
    data = torch.empty(moe.routing_bytes, dtype=torch.uint8, device=moe.ctx.device)
    handle = RoutingHandle(moe, data, topk_ids, topk_weights, copies)
    moe._dispatched += 1
    handle.root = moe._dispatched if routing is None else routing.root
    lease = moe._leases.take(poison=moe.debug)
    moe._leases.bind(lease, handle)
    received = Received(moe, lease.tensor, handle, lease.release, lease.valid)
    return DispatchCall(x, scales, handle, lease, received, moe._load, active, blocks, trace)


def prepare_combine(
    moe: Dispatcher,
    rows: torch.Tensor,
    routing: RoutingHandle,
    apply_weights: bool,
    bias: torch.Tensor | None,
    out: torch.Tensor | None,
    release: bool,
    wire: str | None,
    active: torch.Tensor | None,
    blocks: int,
    trace: torch.Tensor | None,
) -> CombineCall:
    import torch

    moe.check_combine(routing)
    plan, tokens = moe.plan, routing.tokens
    shape: tuple[int | None, ...] = (None, plan.hidden)
    if plan.layout == "expert":
        shape = (moe.local_experts, plan.expert_capacity, plan.hidden)
    check_tensor(moe.ctx.device, "rows", rows, shape, moe._values)
    if rows.dtype.itemsize > plan.combine_dtype.itemsize:
        raise ConfigError(f"rows are {rows.dtype}, larger than combine_dtype={plan.combine_dtype}")
    way = wire_of(wire, rows.dtype, plan.hidden)
    count = rows.numel() // plan.hidden
    _check_row_count(moe, count, routing)
    if bias is not None:
        check_tensor(moe.ctx.device, "bias", bias, (tokens, plan.hidden), (rows.dtype,))
    if apply_weights and routing.topk_weights is None:
        raise ConfigError("apply_weights=True: the dispatch had no topk_weights")
    if out is None:
        out = torch.empty((tokens, plan.hidden), dtype=rows.dtype, device=rows.device)
    else:
        check_tensor(moe.ctx.device, "out", out, (tokens, plan.hidden), (rows.dtype,))
    active = _participants(moe, active, blocks, trace)
    row_weights = _row_weights(moe, routing) if apply_weights and plan.layout != "rank" else 0
    return CombineCall(
        rows,
        routing,
        apply_weights,
        bias,
        out,
        release,
        plan.hidden,
        count,
        row_weights,
        way,
        active,
        blocks,
        trace,
    )


def _row_weights(moe: Dispatcher, routing: RoutingHandle) -> int:
    """Address of the received weights; by expert, they are applied where the experts are."""
    start = moe._leases.address_of(routing)
    if start == 0:
        raise ConfigError(
            f"apply_weights=True in layout={moe.plan.layout}: the received rows, and the weights beside them, "
            "were given back; combine before release, or apply the weights in the experts"
        )
    return start + int(moe._layout.receive.weights)


def _participants(
    moe: Dispatcher, active: torch.Tensor | None, blocks: int, trace: torch.Tensor | None
) -> torch.Tensor | None:
    """Gives the ranks that take part: those of `active` that are not left out."""
    import torch

    if active is not None:
        check_tensor(moe.ctx.device, "active", active, (1,), (torch.int64,))
    if blocks != 0:
        check_launch_number("blocks", blocks)
    if trace is not None:
        check_tensor(moe.ctx.device, "trace", trace, (_core.EP_MAX_BLOCKS, _core.EP_TRACE_WORDS), (torch.int64,))
    if active is None or moe._here is None:
        return moe._here if active is None else active
    return active & moe._here


def _check_row_count(moe: Dispatcher, count: int, routing: RoutingHandle) -> None:
    """On the CPU the number of rows is known; on a GPU only that capacity rows always suffice."""
    if moe.ctx.synchronous and moe.plan.layout != "expert":
        need = int((routing.total if moe.plan.layout == "rank" else routing.expert_offsets[-1:]).item())
        if count < need:
            raise ConfigError(f"rows has {count} rows, the routing brought {need}")
