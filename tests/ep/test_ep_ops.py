# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""torch.ops.mori: the operators give what the methods give, torch's own checks of operators pass, and a compiled layer
has the results and gradients of the one that is not compiled."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from ep_crew import Crew, refusal
from mori.ep import Dispatcher, register_ops
from mori.testing import run_ranks

import mori

pytestmark = pytest.mark.timeout(110)

HIDDEN, EXPERTS, TOPK, TOKENS = 16, 6, 2, 7
register_ops()


def make(ctx: Any, **options: Any) -> Dispatcher:
    given = {"dtype": torch.float32, "live_results": 3, **options}
    return Dispatcher(ctx, HIDDEN, EXPERTS, topk=TOPK, max_tokens=TOKENS, **given)


def inputs(rank: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(rank)
    x = torch.randn(TOKENS, HIDDEN, generator=generator)
    ids = torch.rand(TOKENS, EXPERTS, generator=generator).argsort(1)[:, :TOPK].contiguous()
    return x, ids, torch.rand(TOKENS, TOPK, generator=generator)


def layer(x: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor, number: int) -> torch.Tensor:
    rows, here, factors, routing = torch.ops.mori.ep_dispatch(x, ids, weights, number)
    scale = torch.where(here >= 0, factors * (here + 1), 0.0).sum(1, keepdim=True)
    return torch.ops.mori.ep_combine(torch.tanh(rows) * scale, routing, ids, number)


def dense(x: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return torch.tanh(x) * (weights * (ids + 1)).sum(1, keepdim=True)


def run_layer(ctx: Any, compiled: bool) -> list[str]:
    x, ids, weights = inputs(ctx.rank)
    x2, weights2 = x.clone().requires_grad_(), weights.clone().requires_grad_()
    x.requires_grad_(), weights.requires_grad_()
    toward = torch.randn(TOKENS, HIDDEN, generator=torch.Generator().manual_seed(7))
    function: Callable[..., Any] = torch.compile(layer, backend="aot_eager", fullgraph=True) if compiled else layer
    wrong = []
    with make(ctx) as moe:
        for _ in range(3):
            x.grad = weights.grad = x2.grad = weights2.grad = None
            y = function(x, ids, weights, moe.number)
            (y * toward).sum().backward()
            wanted = dense(x2, ids, weights2)
            (wanted * toward).sum().backward()
            pairs = {"y": (y, wanted), "x": (x.grad, x2.grad), "weights": (weights.grad, weights2.grad)}
            wrong += [n for n, (a, b) in pairs.items() if not torch.allclose(a, b, rtol=1e-4, atol=1e-5)]
            del y
            gc.collect()
    return wrong


def test_operators_and_their_gradients(crew3: Crew) -> None:
    assert crew3.each(lambda ctx: run_layer(ctx, False)) == [[]] * 3


def compiled(rank: int, world_size: int, uid: bytes) -> list[str]:
    register_ops()
    with mori.init(uid=uid, rank=rank, world_size=world_size, device="cpu", heap_bytes=4 << 20) as ctx:
        return run_layer(ctx, True)


def test_a_compiled_layer() -> None:
    assert run_ranks(compiled, 2, timeout=100) == [[]] * 2


def test_torch_s_checks_of_operators(crews: Callable[[int], Crew]) -> None:
    tests = ("test_schema", "test_faketensor")

    def work(ctx: Any) -> None:
        x, ids, weights = inputs(ctx.rank)
        with make(ctx, live_results=8) as moe:
            torch.library.opcheck(torch.ops.mori.ep_dispatch, (x, ids, weights, moe.number), test_utils=tests)
            rows, _, _, routing = torch.ops.mori.ep_dispatch(x, ids, weights, moe.number)
            torch.library.opcheck(torch.ops.mori.ep_combine, (rows.clone(), routing, ids, moe.number), test_utils=tests)

    crews(1).each(work)


def test_numbers_and_routings_that_do_not_fit(crew3: Crew) -> None:
    def work(ctx: Any) -> list[str]:
        x, ids, weights = inputs(ctx.rank)
        texts = [str(refusal(lambda: torch.ops.mori.ep_dispatch(x, ids, weights, 1 << 40)))]
        with make(ctx) as moe:
            rows, _, _, routing = torch.ops.mori.ep_dispatch(x, ids, weights, moe.number)
            short = routing[:-8].clone()
            texts.append(str(refusal(lambda: torch.ops.mori.ep_combine(rows, short, ids, moe.number))))
        return texts

    for first, second in crew3.each(work):
        assert "dispatcher=1099511627776 is not the number" in first
        assert "tensors[0]" in second
