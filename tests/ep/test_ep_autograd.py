# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""dispatch and combine are each other's backward: gradients of a small MoE layer over several ranks are those of the
dense layer in one process, for every layout, for ranks without tokens, and after a few steps of training."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from ep_cases import open_context
from ep_crew import Crew, refusal
from mori.ep import Dispatcher
from mori.testing import run_ranks

pytestmark = pytest.mark.timeout(90)

HIDDEN, INNER, EXPERTS, TOPK, MAX = 16, 12, 6, 2, 10
LAYOUTS = {
    "rank": {},
    "expert": {"layout": "expert", "expert_capacity": 40},
    "grouped": {"layout": "grouped", "align": 4},
}


class Layer:
    """The weights of router and experts, the same on all ranks; `local` is what one rank trains."""

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.router = torch.randn(HIDDEN, EXPERTS, generator=generator).requires_grad_()
        self.up = (torch.randn(EXPERTS, HIDDEN, INNER, generator=generator) / 4).requires_grad_()
        self.down = (torch.randn(EXPERTS, INNER, HIDDEN, generator=generator) / 4).requires_grad_()

    def parameters(self) -> list[torch.Tensor]:
        return [self.router, self.up, self.down]

    def route(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        best = (x @ self.router).topk(TOPK)
        return best.indices, best.values.softmax(dim=1)

    def expert(self, x: torch.Tensor, expert: int) -> torch.Tensor:
        return F.silu(x @ self.up[expert]) @ self.down[expert]

    def dense(self, x: torch.Tensor) -> torch.Tensor:
        ids, weights = self.route(x)
        y = torch.zeros_like(x)
        for expert in range(EXPERTS):
            token, k = (ids == expert).nonzero(as_tuple=True)
            y = y.index_add(0, token, weights[token, k].unsqueeze(1) * self.expert(x[token], expert))
        return y


def parallel(moe: Dispatcher, layer: Layer, x: torch.Tensor, weigh: str) -> torch.Tensor:
    """The layer over all ranks. `weigh`: who multiplies by the router's weights, "combine" or "experts"."""
    ids, weights = layer.route(x)
    recv = moe.dispatch(x, ids, weights)
    local = moe.placement.local(moe.ctx.rank)
    if moe.plan.layout == "rank":
        got = recv.trim()
        rows = torch.zeros_like(got.x)
        for expert in local:
            row, k = (got.topk_ids == expert).nonzero(as_tuple=True)
            weight = got.topk_weights[row, k].unsqueeze(1)
            rows = rows.index_add(0, row, weight * layer.expert(got.x[row], expert))
        return moe.combine(rows, recv.routing)
    if moe.plan.layout == "expert":
        rows = torch.stack([layer.expert(recv.x[index], expert) for index, expert in enumerate(local)])
    else:
        starts = recv.expert_offsets.tolist()
        parts = [layer.expert(recv.x[starts[i] : starts[i + 1]], expert) for i, expert in enumerate(local)]
        rows = torch.cat(parts) if parts else recv.x[:0]
    if weigh == "combine":
        return moe.combine(rows, recv.routing, apply_weights=True)
    routes = recv.routes[: int(recv.total)].long()
    flat = torch.zeros(rows.shape[:-1].numel(), 1)
    row, k = (routes >= 0).nonzero(as_tuple=True)
    flat = flat.index_put((routes[row, k],), recv.topk_weights[row, k].unsqueeze(1))
    return moe.combine(rows * flat.view(*rows.shape[:-1], 1), recv.routing)


def batch(rank: int, step: int, counts: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1000 * step + rank)
    tokens = counts[(rank + step) % len(counts)]
    return torch.randn(tokens, HIDDEN, generator=generator), torch.randn(tokens, HIDDEN, generator=generator)


def make(ctx: Any, layout: str, **options: Any) -> Dispatcher:
    given = {"dtype": torch.float32, "live_results": 2, **LAYOUTS[layout], **options}
    return Dispatcher(ctx, HIDDEN, EXPERTS, topk=TOPK, max_tokens=MAX, **given)


def summed(ctx: Any, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """Each tensor's sum over the ranks."""
    flat = torch.cat([t.flatten() for t in tensors])
    parts = [m.payload for m in ctx.mesh.exchange("gradients", flat.numpy().tobytes())]
    total = torch.stack([torch.frombuffer(bytearray(part), dtype=torch.float32) for part in parts]).sum(0)
    return [part.view(t.shape) for part, t in zip(total.split([t.numel() for t in tensors]), tensors, strict=True)]


def gradients(ctx: Any, layout: str, weigh: str, counts: tuple[int, ...]) -> list[str]:
    layer, reference = Layer(), Layer()
    x, toward = batch(ctx.rank, 0, counts)
    x.requires_grad_()
    with make(ctx, layout) as moe:
        y = parallel(moe, layer, x, weigh)
        (y * toward).sum().backward()
    got = summed(ctx, [p.grad if p.grad is not None else torch.zeros_like(p) for p in layer.parameters()])
    wrong = []
    for rank in range(ctx.world_size):
        other, toward = batch(rank, 0, counts)
        other.requires_grad_()
        wanted = reference.dense(other)
        (wanted * toward).sum().backward()
        if rank == ctx.rank:
            pairs = [("y", y, wanted), ("grad x", x.grad, other.grad)]
            wrong += [name for name, a, b in pairs if not torch.allclose(a, b, rtol=1e-4, atol=1e-5)]
    for name, a, p in zip(("router", "up", "down"), got, reference.parameters(), strict=True):
        if not torch.allclose(a, p.grad, rtol=1e-4, atol=1e-4):
            wrong.append(f"grad {name} by {float((a - p.grad).abs().max())}")
    return wrong


CASES = [
    (layout, weigh) for layout in LAYOUTS for weigh in ("experts", "combine") if (layout, weigh) != ("rank", "combine")
]


@pytest.mark.parametrize("counts", [(7, 10, 4), (0, 6), (0,)], ids=["all", "some-empty", "all-empty"])
@pytest.mark.parametrize(("layout", "weigh"), CASES, ids=["-".join(case) for case in CASES])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_gradients_are_the_dense_layer_s(
    crews: Callable[[int], Crew], ranks: int, layout: str, weigh: str, counts: tuple[int, ...]
) -> None:
    assert crews(ranks).each(lambda ctx: gradients(ctx, layout, weigh, counts)) == [[]] * ranks


def combine_weights(ctx: Any) -> list[str]:
    """Layout rank, weights applied by combine: y[t] = sum over ranks of (sum of weights there) * row."""
    generator = torch.Generator().manual_seed(ctx.rank)
    x = torch.randn(5, HIDDEN, generator=generator).requires_grad_()
    ids = torch.rand(5, EXPERTS, generator=generator).argsort(1)[:, :TOPK].contiguous()
    ids[0, 1] = -1
    weights = torch.rand(5, TOPK, generator=generator).requires_grad_()
    bias = torch.randn(5, HIDDEN, generator=generator).requires_grad_()
    toward = torch.randn(5, HIDDEN, generator=generator)
    with make(ctx, "rank") as moe:
        recv = moe.dispatch(x, ids, weights)
        y = moe.combine(torch.tanh(recv.x), recv.routing, apply_weights=True, bias=bias)
        (y * toward).sum().backward()
    there = (ids >= 0).float()
    x2, w2 = x.detach().requires_grad_(), weights.detach().requires_grad_()
    wanted = torch.tanh(x2) * (w2 * there).sum(1, keepdim=True) + bias.detach()
    (wanted * toward).sum().backward()
    pairs = [("y", y, wanted), ("x", x.grad, x2.grad), ("weights", weights.grad, w2.grad), ("bias", bias.grad, toward)]
    return [name for name, a, b in pairs if not torch.allclose(a, b, rtol=1e-4, atol=1e-5)]


@pytest.mark.parametrize("ranks", [1, 3])
def test_weights_applied_by_combine(crews: Callable[[int], Crew], ranks: int) -> None:
    assert crews(ranks).each(combine_weights) == [[]] * ranks


def train(rank: int, world_size: int, uid: bytes, layout: str, weigh: str) -> list[float]:
    """A few steps of gradient descent on both layers at once; how far their weights are apart in the end."""
    layer, reference = Layer(), Layer()
    with open_context(rank, world_size, uid) as ctx, make(ctx, layout) as moe:
        for step in range(6):
            counts = (9, 0, 5, 10)
            x, toward = batch(rank, step, counts)
            loss = (parallel(moe, layer, x, weigh) - toward).square().sum()
            loss.backward()
            grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in layer.parameters()]
            for parameter, grad in zip(layer.parameters(), summed(ctx, grads), strict=True):
                parameter.data -= 0.02 * grad
                parameter.grad = None
            for other in range(world_size):
                x, toward = batch(other, step, counts)
                (reference.dense(x) - toward).square().sum().backward()
            for parameter in reference.parameters():
                parameter.data -= 0.02 * parameter.grad
                parameter.grad = None
    first = Layer()
    moved = [float((a - b).abs().max()) for a, b in zip(first.parameters(), layer.parameters(), strict=True)]
    assert all(m > 0.01 for m in moved), moved
    return [float((a - b).abs().max()) for a, b in zip(layer.parameters(), reference.parameters(), strict=True)]


@pytest.mark.parametrize(("layout", "weigh"), [("rank", "experts"), ("grouped", "combine"), ("expert", "experts")])
@pytest.mark.parametrize("ranks", [2, 4])
def test_training_stays_with_the_dense_layer(ranks: int, layout: str, weigh: str) -> None:
    for apart in run_ranks(train, ranks, layout, weigh, timeout=60):
        assert max(apart) < 2e-4, apart


def test_rows_that_backward_reads_stay_until_it_has(crew3: Crew) -> None:
    """Squaring saves the received rows themselves, and backward of combine dispatches into a second buffer."""

    def work(ctx: Any) -> list[str]:
        texts = []
        for results in (1, 2):
            with make(ctx, "rank", live_results=results) as moe:
                for step in range(3):
                    x = batch(ctx.rank, step, (6,))[0].requires_grad_()
                    ids = torch.arange(TOPK).expand(6, TOPK).contiguous()
                    recv = moe.dispatch(x, ids)
                    y = moe.combine(recv.x * recv.x, recv.routing)
                    del recv
                    texts.append(str(refusal(y.sum().backward)))
                    if results == 2 and not torch.allclose(x.grad, 2 * x.detach()):
                        texts.append("wrong gradient")
                    del y
                    gc.collect()
        return texts

    for texts in crew3.each(work):
        assert all("live_results=1 results" in text for text in texts[:3])
        assert texts[3:] == ["None"] * 3


def test_replay_along_the_same_routes(crew3: Crew) -> None:
    """Activation checkpointing: the forward runs again with the routing kept, and gradients are the same."""

    def work(ctx: Any) -> bool:
        x, toward = batch(ctx.rank, 3, (6, 0, 9))
        x.requires_grad_()
        with make(ctx, "rank", live_results=3) as moe:
            ids, weights = Layer().route(x.detach())
            with torch.no_grad():
                kept = moe.dispatch(x, ids, weights)
                y = moe.combine(torch.tanh(kept.trim().x), kept.routing)
            again = moe.dispatch(x, routing=kept.routing)
            got = moe.combine(torch.tanh(again.trim().x), again.routing)
            (got * toward).sum().backward()
        visits = (moe_visits(ids, moe)).sum(1, keepdim=True)
        wanted = toward * (1 - torch.tanh(x.detach()) ** 2) * visits
        return torch.equal(got, y) and torch.allclose(x.grad, wanted, rtol=1e-4, atol=1e-5)

    assert crew3.each(work) == [True] * 3


def moe_visits(ids: torch.Tensor, moe: Dispatcher) -> torch.Tensor:
    owner = torch.tensor(moe.placement.copy_rank)[ids]
    return torch.stack([(owner == rank).any(1) for rank in range(moe.ctx.world_size)], 1).float()


def test_types_that_have_no_way_back_are_refused(crew3: Crew) -> None:
    def work(ctx: Any) -> list[str]:
        x = torch.randn(3, HIDDEN, dtype=torch.bfloat16).requires_grad_()
        ids = torch.zeros(3, TOPK, dtype=torch.int32)
        ids[:, 1] = 1
        texts = []
        with make(ctx, "rank", dtype=torch.bfloat16, combine_dtype=torch.float32) as moe:
            recv = moe.dispatch(x.detach(), ids)
            rows = recv.x.float().requires_grad_()
            texts.append(str(refusal(lambda: moe.combine(rows, recv.routing))))
            out = torch.empty(3, HIDDEN, dtype=torch.bfloat16)
            texts.append(str(refusal(lambda: moe.combine(recv.x.clone().requires_grad_(), recv.routing, out=out))))
            moe.combine(recv.x, recv.routing)
        return texts

    for first, second in crew3.each(work):
        assert "rows requires gradients and is torch.float32, the dispatcher sends torch.bfloat16" in first
        assert second.startswith("out: given")


def test_without_gradients_nothing_is_recorded(crew3: Crew) -> None:
    def work(ctx: Any) -> bool:
        x = torch.randn(3, HIDDEN).requires_grad_()
        ids = torch.zeros(3, TOPK, dtype=torch.int32)
        with make(ctx, "rank") as moe, torch.no_grad():
            recv = moe.dispatch(x, ids)
            y = moe.combine(recv.x, recv.routing)
        return recv.x.requires_grad or y.requires_grad

    assert crew3.each(work) == [False] * 3
