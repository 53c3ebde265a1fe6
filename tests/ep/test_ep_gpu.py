# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Dispatch and combine on real GPUs, compared bit for bit with the reference. One GPU is enough: ranks are threads with
a stream each, or processes that share it by turns; with several GPUs, a rank on each. `pytest -m gpu`.

Ranks on one GPU wait for each other's kernels: whatever makes the driver wait for a kernel in between (allocating,
loading code, synchronising the device) would be a deadlock until the deadline. settle() does those things beforehand.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from ep_cases import Case, expert_map, make, open_context, run_case, settle, table, tokens_of
from ep_crew import refusal

from mori import _core
from mori.ep import reference
from mori.ep.reference import Tokens, first_difference
from mori.errors import CapacityError, ConfigError, PeerLost, TimeoutError
from mori.testing import run_ranks

KIND = "hip" if torch.version.hip else "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(180),
    pytest.mark.skipif(
        not torch.cuda.is_available() or _core.device_count(KIND)[0] == 0,
        reason=f"needs a GPU: {_core.device_count(KIND)[1]}",
    ),
]
several_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs that reach each other")
_one_at_a_time = threading.Lock()  # torch's start of a capture synchronises the device

CASES = table(
    Case("bf16"),
    Case("bf16-weighted-bias-out", apply_weights=True, bias=True, out=True, topk=4),
    Case("bf16-topk-9-int64", topk=9, experts=40, ids="int64"),
    Case("bf16-7168", hidden=7168, experts=256, topk=8, tokens=(128, 1, 77), max_tokens=128),
    Case("bf16-4096-tokens", hidden=2048, experts=64, topk=8, tokens=(4096, 4000), max_tokens=4096, rounds=1),
    Case("no-tokens-on-some-ranks", tokens=(0, 6, 0), rounds=3),
    Case("nothing-goes-anywhere", routing="nowhere"),
    Case("all-experts-on-the-last-rank", placement="one-rank", topk=4),
    Case("one-block", blocks=1, warps=1, tokens=(40,), max_tokens=40),
    Case("many-blocks", blocks=16, warps=4, tokens=(3, 1)),
    Case("fp16-special-values", dtype="float16", special=True, hidden=520, rounds=3),
    Case("fp32-weighted", dtype="float32", apply_weights=True, topk=4, hidden=1028),
    Case("fp8-fp32-scales", dtype="float8_e4m3fn", hidden=7168, scales=(56, "float32"), topk=8, experts=32),
    Case("fp8-3-scales", dtype="float8_e4m3fnuz", hidden=384, scales=(3, "float32")),
    Case("fp4-e8m0-scales", dtype="uint8", hidden=7168, scales=(224, "uint8"), topk=8, experts=32),
    Case("fp4-17-scales", dtype="uint8", hidden=544, scales=(17, "uint8")),
)


def gpu_context(rank: int, world_size: int, uid: bytes, **options: Any) -> Any:
    """A rank's context on its GPU: the only one, or one each."""
    index = rank % torch.cuda.device_count() if options.pop("spread", False) else 0
    torch.cuda.set_device(index)
    return open_context(rank, world_size, uid, **({"device": f"cuda:{index}", "heap_bytes": 64 << 20} | options))


def on_own_stream(work: Callable[..., Any], rank: int, world_size: int, uid: bytes, *args: Any, **options: Any) -> Any:
    """`work(ctx, ...)` with a context and a stream of this rank's own."""
    with gpu_context(rank, world_size, uid, **options) as ctx, torch.cuda.stream(torch.cuda.Stream()):
        return work(ctx, *args)


def run_all(ctx: Any, cases: Mapping[str, Case]) -> dict[str, str]:
    outcome = {}
    for name, case in cases.items():
        try:
            outcome[name] = run_case(ctx, case)
        except Exception:
            outcome[name] = traceback.format_exc()
            break  # ranks may be out of step
    return outcome


def table_work(rank: int, world_size: int, uid: bytes, cases: Mapping[str, Case], spread: bool) -> dict[str, str]:
    return on_own_stream(run_all, rank, world_size, uid, cases, spread=spread)


def check_all(outcome: list[dict[str, str]], cases: Mapping[str, Case]) -> None:
    wrong = [f"rank {r}, {name}: {text}" for r, by_name in enumerate(outcome) for name, text in by_name.items() if text]
    assert not wrong, "\n".join(wrong)
    assert all(len(by_name) == len(cases) for by_name in outcome)


@pytest.mark.parametrize("world_size", [1, 2, 4], ids="{}ranks".format)
def test_ranks_as_threads(world_size: int) -> None:
    check_all(run_ranks(table_work, world_size, CASES, False, mode="thread", timeout=170), CASES)


@pytest.mark.parametrize("world_size", [2, 3], ids="{}ranks".format)
def test_ranks_as_processes_that_share_a_gpu(world_size: int) -> None:
    few = {name: CASES[name] for name in ("bf16", "bf16-weighted-bias-out", "fp8-3-scales", "fp4-17-scales")}
    check_all(run_ranks(table_work, world_size, few, False, timeout=170), few)


@several_gpus
@pytest.mark.parametrize("mode", ["process", "thread"])
def test_a_rank_on_each_gpu(mode: str) -> None:
    world_size = torch.cuda.device_count()
    check_all(run_ranks(table_work, world_size, CASES, True, mode=mode, timeout=170), CASES)


BANK = 7  # different inputs, taken in turn by the replays of a graph
GRAPH = Case("graph", hidden=1024, experts=16, topk=4, max_tokens=32, tokens=(32,), apply_weights=True)


def capture(ctx: Any, moe: Any, static: Tokens) -> tuple[torch.cuda.CUDAGraph, Any, torch.Tensor]:
    """A graph of dispatch, an expert that doubles, and combine."""
    stream = torch.cuda.current_stream()
    graph = torch.cuda.CUDAGraph()
    with _one_at_a_time, torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        recv = moe.dispatch(static.x, static.topk_ids, static.topk_weights)
        y = moe.combine(recv.x * 2, recv.routing, apply_weights=True, release=False)
    ctx.mesh.barrier("captured")
    return graph, recv, y


def parts(tokens: Tokens) -> list[torch.Tensor]:
    return [t for t in (tokens.x, tokens.topk_ids, tokens.topk_weights) if t is not None]


def replay(ctx: Any, count: int, checks: int) -> str:
    world, rank, device = ctx.world_size, ctx.rank, ctx.device
    placed = expert_map(GRAPH, world)
    bank = []
    for i in range(BANK):
        generator = torch.Generator().manual_seed(i)
        sent = [tokens_of(GRAPH, r, i) for r in range(world)]
        finite = [torch.randn(t.x.shape, generator=generator).to(t.x.dtype) for t in sent]
        bank.append([Tokens(x, t.topk_ids, t.topk_weights) for x, t in zip(finite, sent, strict=True)])
    mine = [[t.to(device) for t in parts(b[rank])] for b in bank]
    static = Tokens(*(t.clone() for t in mine[0]))
    with make(ctx, GRAPH) as moe:
        settle(ctx, moe, static.x.shape, static.x.dtype)
        (static.x * 2).sum()  # loads torch's kernels
        graph, recv, y = capture(ctx, moe, static)
        for i in range(count):
            chosen = (i * i + i // 7) % BANK
            for to, source in zip(parts(static), mine[chosen], strict=True):
                to.copy_(source)
            graph.replay()
            if (i + 1) % (count // checks) and i:
                continue
            ctx.synchronize()
            expected = [reference.dispatch(bank[chosen], r, placed) for r in range(world)]
            n = int(recv.total)
            wanted = reference.combine(bank[chosen], rank, placed, [e.x * 2 for e in expected], apply_weights=True)
            for text in (
                first_difference("x", recv.x[:n], expected[rank].x),
                first_difference("src", recv.src[:n], expected[rank].src),
                first_difference("topk_ids", recv.topk_ids[:n], expected[rank].topk_ids),
                first_difference("y", y, wanted),
            ):
                if text:
                    return f"replay {i} of inputs {chosen}: {text}"
        ctx.synchronize()
    return ""


def graph_work(rank: int, world_size: int, uid: bytes, count: int, spread: bool) -> str:
    return on_own_stream(replay, rank, world_size, uid, count, 40, spread=spread)


@pytest.mark.parametrize("world_size", [1, 2], ids="{}ranks".format)
def test_graph_replayed_10000_times(world_size: int) -> None:
    assert run_ranks(graph_work, world_size, 10_000, False, mode="thread", timeout=170) == [""] * world_size


@several_gpus
def test_graph_over_gpus() -> None:
    world_size = torch.cuda.device_count()
    assert run_ranks(graph_work, world_size, 10_000, True, timeout=170) == [""] * world_size


SMALL = Case("small", tokens=(6,), masked=0)


def absent(ctx: Any) -> Any:
    """Rank 1 dispatches and leaves rank 0 alone in combine."""
    sent = tokens_of(SMALL, ctx.rank)
    x, ids = sent.x.cuda(), sent.topk_ids.cuda()
    moe = make(ctx, SMALL)
    rows = torch.zeros(moe.capacity, SMALL.hidden, dtype=x.dtype, device=ctx.device)
    settle(ctx, moe, x.shape, x.dtype)
    recv = moe.dispatch(x, ids)
    ctx.synchronize()
    ctx.mesh.barrier("dispatched")
    if ctx.rank == 1:
        ctx.mesh.barrier("told", timeout=20)
        return None
    start = time.monotonic()
    first = refusal(lambda: (moe.combine(rows, recv.routing), ctx.synchronize()))
    seconds = time.monotonic() - start
    second = refusal(lambda: moe.dispatch(x, ids))
    ctx.mesh.barrier("told", timeout=20)
    return first, seconds, second


def absent_work(rank: int, world_size: int, uid: bytes) -> Any:
    return on_own_stream(absent, rank, world_size, uid, timeout=1.5)


def test_an_absent_rank_is_named_at_the_deadline() -> None:
    first, seconds, second = run_ranks(absent_work, 2, mode="thread", timeout=60)[0]
    assert isinstance(first, TimeoutError) and first.peer == 1 and first.what == "ep.combine: returned rows", first
    assert 1.4 < seconds < 2.5
    assert str(second) == str(first)


def killed(ctx: Any) -> Any:
    sent = tokens_of(SMALL, ctx.rank)
    x, ids = sent.x.cuda(), sent.topk_ids.cuda()
    moe = make(ctx, SMALL)
    settle(ctx, moe, x.shape, x.dtype)
    moe.dispatch(x, ids)
    ctx.synchronize()
    ctx.mesh.barrier("dispatched")
    if ctx.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    start = time.monotonic()
    error = refusal(lambda: (moe.dispatch(x, ids), ctx.synchronize()))
    seconds = time.monotonic() - start
    with ctx.recover() as fresh:
        return error, seconds, fresh.world_size, run_case(fresh, SMALL)


def killed_work(rank: int, world_size: int, uid: bytes) -> Any:
    return on_own_stream(killed, rank, world_size, uid, timeout=10)


def test_a_killed_process_is_named_and_the_rest_recovers() -> None:
    for result in run_ranks(killed_work, 3, expendable=[1], timeout=100)[::2]:
        error, seconds, ranks, after = result
        assert isinstance(error, PeerLost) and error.peer == 1 and seconds < 5, (error, seconds)
        assert (ranks, after) == (2, "")


def refused(ctx: Any, what: str) -> Any:
    sent = tokens_of(SMALL, ctx.rank)
    x, ids = sent.x.cuda(), sent.topk_ids.cuda()
    bad = ids.clone()
    if what == "id" and ctx.rank == 1:
        bad[0, 0] = SMALL.experts + 5
    one = x[:1].contiguous(), ids[:1].contiguous()
    with make(ctx, SMALL, capacity=3 if what == "capacity" else None) as moe:
        settle(ctx, moe, x.shape, x.dtype)
        error = refusal(lambda: (moe.dispatch(x, bad), ctx.synchronize()))
        ctx.mesh.barrier("refused")
        recv = moe.dispatch(*one)
        few = [Tokens(t.x[:1], t.topk_ids[:1]) for t in (tokens_of(SMALL, r) for r in range(ctx.world_size))]
        expected = reference.dispatch(few, ctx.rank, expert_map(SMALL, ctx.world_size))
        return error, first_difference("x", recv.trim().x, expected.x)


def refused_work(rank: int, world_size: int, uid: bytes, what: str) -> Any:
    return on_own_stream(refused, rank, world_size, uid, what)


@pytest.mark.parametrize(("what", "kind"), [("id", ConfigError), ("capacity", CapacityError)], ids=["id", "capacity"])
def test_a_refusal_on_all_ranks_and_the_next_call_works(what: str, kind: type[Exception]) -> None:
    for error, after in run_ranks(refused_work, 2, what, mode="thread", timeout=60):
        assert isinstance(error, kind), error
        assert after == ""
