# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""On real GPUs: every layout and narrowing, EP8 shapes on one or two GPUs, graphs that are interleaved and hold several
results, two streams, and 100,000 replays with changing routing. `pytest -m gpu`; the rules are in test_ep_gpu.py."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from ep_cases import Case, expert_map, make, settle, table, tokens_of
from mori.ep import RECIPES, reference
from mori.ep.reference import Tokens, first_difference
from mori.testing import run_ranks
from test_ep_gpu import KIND, _one_at_a_time, check_all, graph_work, on_own_stream, parts, run_all, several_gpus

from mori import _core

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(180),
    pytest.mark.skipif(
        not torch.cuda.is_available() or _core.device_count(KIND)[0] == 0,
        reason=f"needs a GPU: {_core.device_count(KIND)[1]}",
    ),
]

one_gpu = pytest.mark.skipif(torch.cuda.device_count() > 1, reason="runs over all GPUs instead")

LAYOUTS: dict[str, dict[str, Any]] = {
    "rank": {},
    "expert": {"layout": "expert"},
    "grouped": {"layout": "grouped", "align": 16, "zero_padding": True},
}
CASES = table(
    *(
        Case(f"{name}-{what}", **options, **layout)
        for (name, layout), (what, options) in itertools.product(
            LAYOUTS.items(),
            {
                "weighted": {"apply_weights": True, "topk": 4},
                "topk-9-int64": {"topk": 9, "experts": 40, "ids": "int64"},
                "empty": {"tokens": (0, 5, 0), "rounds": 3},
                "halves": {"two_phase": True, "topk": 3},
                "copies-load": {"placement": "replicated", "experts": 9, "topk": 3, "count_load": True},
                "few-blocks": {"call_blocks": 2, "topk": 3},
                "fp8-scales": {"dtype": "float8_e4m3fn", "hidden": 384, "scales": (3, "float32"), "topk": 4},
                "7168": {
                    "hidden": 7168, "experts": 16, "topk": 8, "tokens": (16, 1), "max_tokens": 16, "rounds": 1,
                },
            }.items(),
        )
    ),
    *(
        Case(f"{name}-{source}", quantize=name, dtype=source, hidden=384, topk=3, **layout)
        for (name, source), layout in zip(
            itertools.product(RECIPES, ("bfloat16", "float32")), itertools.cycle(LAYOUTS.values()), strict=False
        )
    ),
)  # fmt: skip
# The dense reference of eight ranks, computed by each of them, is what takes time: rows are short here.
EP8_SHAPE: dict[str, Any] = {
    "hidden": 256, "experts": 256, "topk": 8, "tokens": (128, 7, 0, 100), "max_tokens": 128, "rounds": 1,
}  # fmt: skip
EP8 = table(
    Case("rank-ep8", **EP8_SHAPE),
    Case("expert-ep8", layout="expert", expert_capacity=200, **EP8_SHAPE),
    Case("grouped-ep8", layout="grouped", align=16, **EP8_SHAPE),
)


def table_of(rank: int, world_size: int, uid: bytes, which: str, spread: bool) -> dict[str, str]:
    cases = {"cases": CASES, "ep8": EP8}[which]
    return on_own_stream(run_all, rank, world_size, uid, cases, spread=spread, heap_bytes=1 << 30)


@pytest.mark.parametrize("world_size", [2, pytest.param(3, marks=pytest.mark.slow)], ids="{}ranks".format)
def test_layouts_and_narrowing(world_size: int) -> None:
    check_all(run_ranks(table_of, world_size, "cases", False, mode="thread", timeout=170), CASES)


@several_gpus
@pytest.mark.slow
def test_layouts_and_narrowing_over_gpus() -> None:
    world_size = torch.cuda.device_count()
    check_all(run_ranks(table_of, world_size, "cases", True, timeout=170), CASES)


@pytest.mark.parametrize(
    "spread", [pytest.param(False, marks=one_gpu), pytest.param(True, marks=several_gpus)], ids=["one-gpu", "all-gpus"]
)
def test_eight_ranks_as_threads(spread: bool) -> None:
    check_all(run_ranks(table_of, 8, "ep8", spread, mode="thread", timeout=170), EP8)


GRAPHS = Case("graphs", hidden=1024, experts=16, topk=4, max_tokens=32, tokens=(32,))


class Made:
    """Static inputs, and a graph over them: two dispatches, then their combines in the other order."""

    def __init__(self, ctx: Any, moe: Any, first: int) -> None:
        device = ctx.device
        self.inputs = [[_finite(tokens_of(GRAPHS, r, first + i)) for r in range(ctx.world_size)] for i in range(2)]
        self.static = [Tokens(*(t.to(device).clone() for t in parts(sent[ctx.rank]))) for sent in self.inputs]
        self.graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream()
        with _one_at_a_time, torch.cuda.graph(self.graph, stream=stream, capture_error_mode="thread_local"):
            self.recv = [moe.dispatch(t.x, t.topk_ids, t.topk_weights) for t in self.static]
            self.y = [moe.combine(r.x * 2, r.routing, release=False) for r in reversed(self.recv)][::-1]

    def wrong(self, ctx: Any) -> str:
        placed = expert_map(GRAPHS, ctx.world_size)
        for sent, recv, y in zip(self.inputs, self.recv, self.y, strict=True):
            expected = [reference.dispatch(sent, r, placed) for r in range(ctx.world_size)]
            wanted = reference.combine(sent, ctx.rank, placed, [e.x * 2 for e in expected])
            n = int(recv.total)
            text = first_difference("x", recv.x[:n], expected[ctx.rank].x) or first_difference("y", y, wanted)
            if text:
                return text
        return ""


def _finite(sent: Tokens) -> Tokens:
    generator = torch.Generator().manual_seed(int(sent.topk_ids.sum()) & 0xFFFF)
    return Tokens(torch.randn(sent.x.shape, generator=generator).to(sent.x.dtype), sent.topk_ids, sent.topk_weights)


def interleaved(ctx: Any) -> str:
    """Two graphs of one dispatcher and calls outside of them, in an order that is the same on all ranks."""
    with make(ctx, GRAPHS, live_results=5) as moe:
        like = torch.Size((32, GRAPHS.hidden))
        settle(ctx, moe, like, torch.bfloat16)
        (torch.ones(2, 2, dtype=torch.bfloat16, device=ctx.device) * 2).sum()
        made = []
        for first in (0, 2):
            made.append(Made(ctx, moe, first))
            ctx.mesh.barrier("captured")
        outside = _finite(tokens_of(GRAPHS, ctx.rank, 9))
        x, ids, weights = (t.to(ctx.device) for t in parts(outside))
        for turn in range(12):
            for one in made:
                for y in one.y:
                    y.fill_(float("nan"))
            for which in ((0, 1), (1, 0), (1, 1, 0), (0, 0, 1))[turn % 4]:
                made[which].graph.replay()
                if turn % 3 == 0:
                    recv = moe.dispatch(x, ids, weights)
                    moe.combine(recv.x, recv.routing)
            ctx.synchronize()
            for index, one in enumerate(made):
                if text := one.wrong(ctx):
                    return f"turn {turn}, graph {index}: {text}"
    return ""


def interleaved_work(rank: int, world_size: int, uid: bytes, spread: bool) -> str:
    return on_own_stream(interleaved, rank, world_size, uid, spread=spread)


@one_gpu
def test_interleaved_graphs_with_several_results() -> None:
    assert run_ranks(interleaved_work, 2, False, mode="thread", timeout=170) == [""] * 2


@several_gpus
def test_interleaved_graphs_over_gpus() -> None:
    world_size = torch.cuda.device_count()
    assert run_ranks(interleaved_work, world_size, True, timeout=170) == [""] * world_size


def two_streams(ctx: Any) -> str:
    """A dispatcher for each of two streams, their graphs replayed at the same time."""
    streams = [torch.cuda.current_stream(), torch.cuda.Stream()]
    moes = [make(ctx, GRAPHS, live_results=3, blocks=8) for _ in streams]
    made = []
    for index, (stream, moe) in enumerate(zip(streams, moes, strict=True)):
        with torch.cuda.stream(stream):
            settle(ctx, moe, torch.Size((32, GRAPHS.hidden)), torch.bfloat16)
            (torch.ones(2, 2, dtype=torch.bfloat16, device=ctx.device) * 2).sum()
            made.append(Made(ctx, moe, 2 * index))
        ctx.mesh.barrier("captured")
    for turn in range(12):
        for stream, one in zip(streams, made, strict=True):
            with torch.cuda.stream(stream):
                one.graph.replay()
        for stream in streams:
            with torch.cuda.stream(stream):
                ctx.synchronize()
        for index, one in enumerate(made):
            if text := one.wrong(ctx):
                return f"turn {turn}, stream {index}: {text}"
    return ""


def streams_work(rank: int, world_size: int, uid: bytes) -> str:
    return on_own_stream(two_streams, rank, world_size, uid, spread=True)


@several_gpus
def test_two_streams_at_once() -> None:
    world_size = torch.cuda.device_count()
    assert run_ranks(streams_work, world_size, timeout=170) == [""] * world_size


@several_gpus
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_100000_replays_with_changing_routing() -> None:
    world_size = torch.cuda.device_count()
    assert run_ranks(graph_work, world_size, 100_000, True, timeout=590) == [""] * world_size
