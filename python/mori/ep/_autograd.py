# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Gradients: dispatch and combine are each other's backward, along the same routes.

    y = combine(expert(dispatch(x).x))        grad x = combine(grad received rows), unweighted
                                              grad rows = dispatch(grad y), times the weight where combine applied it
    weights: grad received weights, and <grad y, row> where combine applied them, go home as rows of top-k float32

Both are collective, so all ranks must make the same calls with the same tensors requiring gradients; a rank without
tokens too. Received rows are not given back by combine then: backward reads them, and their memory is free when the
graph is. Rows behind the valid ones are set to zero, for experts that compute with all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mori import _core
from mori.ep._calls import CombineCall
from mori.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from mori.ep._calls import DispatchCall
    from mori.ep._dispatcher import Dispatcher
    from mori.ep._results import Received, RoutingHandle

__all__ = ["combine", "dispatch", "rows_here", "wanted", "weights_home", "zero_behind"]

_WHOLE = _core.EP_SEND | _core.EP_RECEIVE


def wanted(*tensors: torch.Tensor | None) -> bool:
    """Whether a call over these tensors must be recorded."""
    import torch

    return any(t is not None and t.requires_grad for t in tensors) and torch.is_grad_enabled()


def dispatch(moe: Dispatcher, call: DispatchCall, x: torch.Tensor, weights: torch.Tensor | None) -> Received:
    """Runs a dispatch whose received rows and weights lead back to x and topk_weights."""
    _check_types(moe, "x", x.dtype)
    received = call.received
    rows, row_weights = _functions()[0].apply(x, weights, moe, call)
    # Received makes its views when they are asked for: these are they.
    vars(received)["x"] = rows
    if weights is not None:
        vars(received)["topk_weights"] = row_weights
    return received


def combine(moe: Dispatcher, call: CombineCall) -> torch.Tensor:
    """Runs a combine whose result leads back to rows, bias and the weights that it applied."""
    _check_types(moe, "rows", call.rows.dtype)
    weights = call.routing.topk_weights if call.apply_weights else None
    call.release = False
    out: torch.Tensor = _functions()[1].apply(call.rows, weights, call.bias, moe, call)
    return out


def _check_types(moe: Dispatcher, name: str, dtype: torch.dtype) -> None:
    plan = moe.plan
    if plan.recipe is None and plan.scales is None and plan.dtype == dtype:
        return
    sent = f"{plan.dtype}{'' if plan.recipe is None else f' narrowed by {plan.recipe}'}"
    raise ConfigError(
        f"{name} requires gradients and is {dtype}, the dispatcher sends {sent} (scales={plan.scales}); "
        "gradients go the same way back, so they need one type both ways, and no scales"
    )


def _behind(routing: RoutingHandle, shape: Sequence[int], moe: Dispatcher) -> torch.Tensor:
    """bool, of `shape` but for the last dimension: places where no row lies."""
    import torch

    device = moe.ctx.device
    if moe.plan.layout == "expert":
        return torch.arange(shape[1], device=device) >= routing.expert_counts.unsqueeze(1)
    place = torch.arange(shape[0], device=device)
    if moe.plan.layout == "rank":
        return place >= routing.total
    starts, counts = routing.expert_offsets.long(), routing.expert_counts
    if len(counts) == 0:
        return torch.ones_like(place, dtype=torch.bool)
    group = torch.bucketize(place, starts[1:].contiguous(), right=True).clamp(max=len(counts) - 1)
    return place - starts[group] >= counts[group]


def zero_behind(rows: torch.Tensor, routing: RoutingHandle, moe: Dispatcher) -> torch.Tensor:
    return rows.masked_fill_(_behind(routing, rows.shape, moe).unsqueeze(-1), 0)


def rows_here(received: Received) -> torch.Tensor:
    """bool [capacity, topk]: the selections of valid rows whose experts live on this rank."""
    import torch

    ids = received.copies
    return (ids >= 0) & (torch.arange(len(ids), device=ids.device).unsqueeze(1) < received.total)


def _slot_of(routing: RoutingHandle, here: torch.Tensor, nowhere: int) -> torch.Tensor:
    """int64 [capacity, topk]: the slot of each selection that is here, `nowhere` for the others."""
    import torch

    return torch.where(here, routing.routes.long(), nowhere)


def weights_home(
    moe: Dispatcher, known: torch.Tensor, here: torch.Tensor, routing: RoutingHandle, active: torch.Tensor | None
) -> torch.Tensor:
    """float32 [tokens, topk] from what each rank knows about its selections, `known` [capacity, topk]."""
    import torch

    topk = moe.topk
    width = -(-topk // 4) * 4
    masked = torch.where(here, known, 0.0)
    if moe.plan.layout == "rank":
        rows = torch.zeros((len(known), width), dtype=torch.float32, device=known.device)
        rows[:, :topk] = masked
    else:  # each selection has a slot of its own: they add up to the row's
        rows = torch.zeros((moe.plan.slots + 1, width), dtype=torch.float32, device=known.device)
        rows[_slot_of(routing, here, moe.plan.slots), torch.arange(topk, device=known.device)] = masked
        rows = rows[:-1]
    return _sum_few(moe, rows, routing, active)[:, :topk].contiguous()


def _sum_few(moe: Dispatcher, rows: torch.Tensor, routing: RoutingHandle, active: torch.Tensor | None) -> torch.Tensor:
    """combine of float32 rows of up to topk elements, of whole multiples of 16 bytes."""
    import torch

    moe.check_combine(routing)
    width = rows.shape[1]
    out = torch.empty((routing.tokens, width), dtype=torch.float32, device=rows.device)
    wire = _core.EpWire.as_is
    call = CombineCall(rows, routing, False, None, out, False, width, len(rows), 0, wire, active, 0, None)
    moe.launch(call, _WHOLE)
    return out


_made: list[Any] = []


def _functions() -> list[Any]:
    """The two autograd functions; made at their first use, since importing mori needs no torch."""
    if not _made:
        _made.extend(_make())
    return _made


def _make() -> tuple[Any, Any]:
    import torch
    from torch.autograd.function import once_differentiable

    class Dispatch(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, weights: Any, moe: Dispatcher, call: DispatchCall) -> Any:
            moe.launch(call, _WHOLE)
            received = call.received
            ctx.moe, ctx.routing, ctx.active = moe, call.handle, call.active
            # Not the result itself: it will hold what is returned here, and nothing could free the circle.
            ctx.here = rows_here(received) if ctx.needs_input_grad[1] else None
            return zero_behind(received.x, call.handle, moe), received.topk_weights

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, grad_rows: Any, grad_weights: Any) -> Any:
            moe, routing = ctx.moe, ctx.routing
            grad_x = home = None
            if ctx.needs_input_grad[0]:
                grad_x = moe.combine(grad_rows.contiguous(), routing, release=False, active=ctx.active)
            if ctx.needs_input_grad[1]:
                home = weights_home(moe, grad_weights, ctx.here, routing, ctx.active)
            return grad_x, home, None, None

    class Combine(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, rows: Any, weights: Any, bias: Any, moe: Dispatcher, call: CombineCall) -> Any:
            moe.launch(call, _WHOLE)
            ctx.moe, ctx.routing, ctx.active = moe, call.routing, call.active
            ctx.weighted, ctx.shape = weights is not None, rows.shape
            ctx.save_for_backward(rows if ctx.needs_input_grad[1] else None)
            return call.out

        @staticmethod
        @once_differentiable
        def backward(ctx: Any, grad_out: Any) -> Any:
            moe, routing = ctx.moe, ctx.routing
            grad_rows = home = None
            if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
                came = moe.dispatch(grad_out.contiguous(), routing=routing, active=ctx.active)
                grads = came.x[: ctx.shape[0]]
                zero_behind(grads, came.routing, moe)
                here = rows_here(came)
                if ctx.needs_input_grad[1]:
                    products = _products(moe, came, ctx.saved_tensors[0], grads, here)
                    home = weights_home(moe, products, here, routing, ctx.active)
                if ctx.needs_input_grad[0]:
                    grad_rows = _weigh(moe, came, grads, here) if ctx.weighted else grads.clone()
                came.release()
            return grad_rows, home, grad_out if ctx.needs_input_grad[2] else None, None, None

    return Dispatch, Combine


def _products(
    moe: Dispatcher, came: Received, rows: torch.Tensor, grads: torch.Tensor, here: torch.Tensor
) -> torch.Tensor:
    """float32 [capacity, topk]: <gradient, row> of each selection that is here."""
    import torch

    behind = _behind(came.routing, grads.shape, moe)
    products = (rows.float() * grads.float()).sum(-1).masked_fill_(behind, 0.0).flatten()
    if moe.plan.layout == "rank":
        missing = len(here) - len(products)
        return torch.nn.functional.pad(products, (0, missing)).unsqueeze(1).expand(here.shape)
    if len(products) <= moe.plan.slots:  # a place for selections that are elsewhere
        products = torch.nn.functional.pad(products, (0, moe.plan.slots + 1 - len(products)))
    return products[_slot_of(came.routing, here, moe.plan.slots)]


def _weigh(moe: Dispatcher, came: Received, grads: torch.Tensor, here: torch.Tensor) -> torch.Tensor:
    """Gradients of rows that combine multiplied by their weights."""
    import torch

    weights = came.topk_weights
    if weights is None:
        raise ConfigError("routing has no topk_weights")
    masked = torch.where(here, weights, 0.0)
    if moe.plan.layout == "rank":
        of_place = masked.sum(1)[: len(grads)]
    else:
        of_place = torch.zeros(moe.plan.slots + 1, dtype=torch.float32, device=grads.device)
        of_place[_slot_of(came.routing, here, moe.plan.slots).flatten()] = masked.flatten()
        of_place = of_place[: grads.numel() // grads.shape[-1]].view(grads.shape[:-1])
    return (of_place.unsqueeze(-1) * grads.float()).to(grads.dtype)
