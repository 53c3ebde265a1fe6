# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""torch.ops.mori: dispatch and combine as operators that torch.compile can trace, with fake kernels and gradients.

    mori.ep.register_ops()
    rows, ids, weights, routing = torch.ops.mori.ep_dispatch(x, topk_ids, topk_weights, moe.number)
    y = torch.ops.mori.ep_combine(experts(rows, ids, weights), routing, topk_ids, moe.number)

Operators take tensors and numbers only, so a dispatcher is named by its `number`; it must outlive the compiled code.
Results are in the form of Received, with capacity rows: zeros, and ids of -1, behind the valid ones. `routing` is the
data of a RoutingHandle. The memory of received rows returns when they are dropped. combine does not apply weights: the
experts do. Gradients reach x, rows and, through the received weights, topk_weights; conditions as in training
(docs/ep_guide.md).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from mori._numbered import Numbered

if TYPE_CHECKING:
    import torch

    from mori.ep._dispatcher import Dispatcher
    from mori.ep._results import RoutingHandle

__all__ = ["enlist", "register_ops"]

_dispatchers: Numbered[Dispatcher] = Numbered("dispatcher")
_lock = threading.Lock()
_registered: list[Any] = []

#: A number by which operators find a dispatcher.
enlist = _dispatchers.enlist
_found = _dispatchers.find


def _handle(
    moe: Dispatcher, routing: torch.Tensor, topk_ids: torch.Tensor, topk_weights: torch.Tensor | None
) -> RoutingHandle:
    moe.check_routing_tensors(routing, topk_ids, topk_weights)
    return moe.handle(routing, topk_ids, topk_weights)


def register_ops() -> None:
    """Defines torch.ops.mori.ep_dispatch, ep_combine and ep_return_weights. Twice is once. Needs torch >= 2.4."""
    with _lock:
        if not _registered:
            _registered.extend(_define())


def _define() -> list[Any]:
    import torch

    from mori.ep import _autograd

    library = torch.library.custom_op

    def dispatch(
        x: torch.Tensor, topk_ids: torch.Tensor, topk_weights: torch.Tensor, dispatcher: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        moe = _found(dispatcher)
        with torch.no_grad():
            recv = moe.dispatch(x.contiguous(), topk_ids.contiguous(), topk_weights.contiguous())
            rows = _autograd.zero_behind(recv.x, recv.routing, moe)
            # Operators' results must not share storage: only the rows, which are large, stay where they came.
            weights: Any = recv.topk_weights
            ids = torch.where(_autograd.rows_here(recv), recv.topk_ids, -1)
            return rows, ids, torch.where(ids >= 0, weights, 0.0), recv.routing.data

    def combine(rows: torch.Tensor, routing: torch.Tensor, topk_ids: torch.Tensor, dispatcher: int) -> torch.Tensor:
        moe = _found(dispatcher)
        with torch.no_grad():
            return moe.combine(rows.contiguous(), _handle(moe, routing, topk_ids, None), release=False)

    def send_again(x: torch.Tensor, routing: torch.Tensor, topk_ids: torch.Tensor, dispatcher: int) -> torch.Tensor:
        moe = _found(dispatcher)
        with torch.no_grad():
            recv = moe.dispatch(x.contiguous(), routing=_handle(moe, routing, topk_ids, None))
            return _autograd.zero_behind(recv.x, recv.routing, moe)

    def return_weights(
        known: torch.Tensor, received_ids: torch.Tensor, routing: torch.Tensor, topk_ids: torch.Tensor, dispatcher: int
    ) -> torch.Tensor:
        moe = _found(dispatcher)
        with torch.no_grad():
            handle = _handle(moe, routing, topk_ids, None)
            return _autograd.weights_home(moe, known, received_ids >= 0, handle, None)

    rest = "Tensor routing, Tensor topk_ids, int dispatcher) -> Tensor"
    ops: dict[str, Any] = {
        name: library(f"mori::{name}", function, mutates_args=(), schema=schema)
        for name, function, schema in (
            (
                "ep_dispatch",
                dispatch,
                "(Tensor x, Tensor topk_ids, Tensor topk_weights, int dispatcher) -> (Tensor, Tensor, Tensor, Tensor)",
            ),
            ("ep_combine", combine, f"(Tensor rows, {rest}"),
            ("ep_send_again", send_again, f"(Tensor x, {rest}"),
            ("ep_return_weights", return_weights, f"(Tensor known, Tensor received_ids, {rest}"),
        )
    }

    def shape_of_rows(moe: Dispatcher) -> tuple[int, ...]:
        plan = moe.plan
        if plan.layout == "expert":
            return moe.local_experts, plan.expert_capacity, plan.row_elements
        return plan.slots, plan.row_elements

    def fake_dispatch(x: Any, topk_ids: Any, topk_weights: Any, dispatcher: int) -> Any:
        moe = _found(dispatcher)
        kept = (moe.plan.capacity, moe.plan.topk)
        return (
            x.new_empty(shape_of_rows(moe), dtype=moe.plan.received_dtype),
            topk_ids.new_empty(kept),
            topk_weights.new_empty(kept),
            x.new_empty((moe.routing_bytes,), dtype=torch.uint8),
        )

    def fake_combine(rows: Any, routing: Any, topk_ids: Any, dispatcher: int) -> Any:
        return rows.new_empty((topk_ids.shape[0], _found(dispatcher).hidden))

    def fake_send_again(x: Any, routing: Any, topk_ids: Any, dispatcher: int) -> Any:
        return x.new_empty(shape_of_rows(_found(dispatcher)))

    def fake_return_weights(known: Any, received_ids: Any, routing: Any, topk_ids: Any, dispatcher: int) -> Any:
        return known.new_empty((topk_ids.shape[0], _found(dispatcher).topk))

    def keep_dispatch(ctx: Any, inputs: Any, output: Any) -> None:
        _, topk_ids, _, ctx.dispatcher = inputs
        ctx.save_for_backward(topk_ids, output[1], output[3])

    def dispatch_back(ctx: Any, grad_rows: Any, grad_ids: Any, grad_weights: Any, grad_routing: Any) -> Any:
        topk_ids, received_ids, routing = ctx.saved_tensors
        x = torch.ops.mori.ep_combine(grad_rows, routing, topk_ids, ctx.dispatcher)
        weights = torch.ops.mori.ep_return_weights(grad_weights, received_ids, routing, topk_ids, ctx.dispatcher)
        return x, None, weights, None

    def keep_combine(ctx: Any, inputs: Any, output: Any) -> None:
        _, routing, topk_ids, ctx.dispatcher = inputs
        ctx.save_for_backward(routing, topk_ids)

    def combine_back(ctx: Any, grad: Any) -> Any:
        routing, topk_ids = ctx.saved_tensors
        return torch.ops.mori.ep_send_again(grad, routing, topk_ids, ctx.dispatcher), None, None, None

    for fake in (fake_dispatch, fake_combine, fake_send_again, fake_return_weights):
        ops[fake.__name__.replace("fake", "ep")].register_fake(fake)
    ops["ep_dispatch"].register_autograd(dispatch_back, setup_context=keep_dispatch)
    ops["ep_combine"].register_autograd(combine_back, setup_context=keep_combine)
    return [*ops.values()]
