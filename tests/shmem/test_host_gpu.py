# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""mori.shmem's host operations and its Triton functions on GPUs: the cases of host_cases.py, graphs replayed with
changing data, two streams, two Shmems. One GPU is enough: ranks are processes that share it. `pytest -m gpu`."""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mori.shmem
import pytest
import torch
from host_cases import CASES
from mori.testing import run_ranks

import mori
from mori import _core

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
BIG = 300_000  # elements: past what one kernel carries


def on_gpu(rank: int, size: int, uid: bytes, work: Callable[..., Any], spread: bool, *args: Any) -> Any:
    """`work(shm, ...)` with a stream of this rank's own."""
    index = rank % torch.cuda.device_count() if spread else 0
    torch.cuda.set_device(index)
    options = {"device": f"cuda:{index}", "timeout": 30, "heap_bytes": 64 << 20}
    with mori.init(uid=uid, rank=rank, world_size=size, **options) as ctx, torch.cuda.stream(torch.cuda.Stream()):
        torch.zeros(1, device=ctx.device).add_(1).item()  # torch's start-up waits for the device
        with mori.shmem.Shmem(ctx) as shm:
            shm.barrier()
            ctx.synchronize()
            result = work(shm, *args)
            ctx.synchronize()
        ctx.barrier()
        return result


def all_cases(shm: mori.shmem.Shmem) -> None:
    for name, work in CASES.items():
        try:
            work(shm)
            shm.context.barrier()
        except Exception as error:
            raise AssertionError(f"case {name}: {error!r}") from error


@pytest.mark.parametrize("size", [1, 2])
def test_cases_on_one_gpu(size: int) -> None:
    # kernels of one rank wait for another's, and torch's allocator for its process's: processes, not threads
    run_ranks(on_gpu, size, all_cases, False, timeout=170)


@several_gpus
@pytest.mark.parametrize("mode", ["process", "thread"])
def test_cases_on_several_gpus(mode: str) -> None:
    run_ranks(on_gpu, min(torch.cuda.device_count(), 4), all_cases, True, mode=mode, timeout=170)


def replay(shm: mori.shmem.Shmem) -> None:
    """A graph of puts, signals, atomics, tests and collectives, small and big, replayed with other data each time."""
    me, n, device = shm.my_pe, shm.n_pes, shm.context.device
    left, right = (me - 1) % n, (me + 1) % n
    x = torch.zeros(BIG, device=device)
    inbox, few = shm.zeros((BIG,), torch.float32), shm.zeros((4,), torch.float32)
    total, gathered = shm.zeros((1000,), torch.float32), shm.zeros((n, 5), torch.float32)
    arrived, count = shm.zeros((1,), torch.int64), shm.zeros((1,), torch.int64)
    seen, ticket = torch.zeros(1, dtype=torch.bool, device=device), torch.zeros(1, dtype=torch.int64, device=device)
    got = torch.zeros(BIG, device=device)

    def step() -> None:
        shm.put(inbox, x, right)
        shm.put_signal(few, x[:4], arrived, 1, right, op="add")
        shm.atomic_fetch_inc(count, 0, out=ticket)
        shm.barrier()
        shm.test(arrived, "ge", 1, out=seen)
        shm.get(got, inbox, left)  # what left was sent
        shm.sum_reduce(total, x[:1000])
        shm.fcollect(gathered.view(-1), x[:5])
        shm.barrier()  # nobody overwrites what another still reads

    step()  # loads all kernels: nothing may be loaded while a stream captures
    shm.context.synchronize()
    shm.context.barrier()
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.current_stream()
    with _one_at_a_time, torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        step()
        with pytest.raises(mori.ConfigError, match="cannot be captured in a graph; give out="):
            shm.atomic_fetch(count, 0)
    shm.context.barrier()
    for number in range(20):
        x.copy_(torch.arange(BIG, device=device) % 97 + 1000 * number + 100 * me)
        graph.replay()
        shm.context.synchronize()

        def of(pe: int, number: int = number) -> torch.Tensor:
            return (torch.arange(BIG, device=device) % 97 + 1000 * number + 100 * pe).float()

        assert torch.equal(inbox, of(left)) and torch.equal(few, of(left)[:4]), number
        assert torch.equal(got, of((left - 1) % n)), number
        assert torch.equal(total, sum(of(pe)[:1000] for pe in range(n))), number
        assert torch.equal(gathered, torch.stack([of(pe)[:5] for pe in range(n)])), number
        assert seen.item() and arrived.item() == number + 2
        assert n * (number + 1) <= ticket.item() < n * (number + 2)
        shm.context.mesh.barrier("looked")


@pytest.mark.parametrize("size", [1, 2])
def test_graphs_replay_with_other_data(size: int) -> None:
    run_ranks(on_gpu, size, replay, False, timeout=170)


@several_gpus
def test_graphs_on_several_gpus() -> None:
    run_ranks(on_gpu, 2, replay, True, timeout=170)


def two_streams(shm: mori.shmem.Shmem) -> None:
    """A wait on one stream does not hold the other; both ways of naming a stream."""
    device = shm.context.device
    word, inbox = shm.zeros((1,), torch.int64), shm.zeros((BIG,), torch.float32)
    waits, works = torch.cuda.Stream(), torch.cuda.Stream()
    x = torch.arange(BIG, device=device, dtype=torch.float32)
    out = torch.zeros(BIG, device=device)
    torch.cuda.current_stream().synchronize()
    for stream in (works, works.cuda_stream):
        word.zero_()
        torch.cuda.current_stream().synchronize()
        shm.signal_wait_until(word, "ge", 1, stream=waits)
        shm.get(out, inbox, shm.my_pe, stream=waits)
        shm.put_signal(inbox, x, word, 1, shm.my_pe, stream=stream)
        shm.quiet(stream=stream)
        waits.synchronize()
        assert torch.equal(out, x)
        out.zero_()
    for wrong in ("0", -1, 1.5):
        with pytest.raises(mori.ConfigError, match=r"neither a torch\.cuda\.Stream nor a stream's handle"):
            shm.quiet(stream=wrong)


def test_two_streams() -> None:
    run_ranks(on_gpu, 1, two_streams, False, timeout=100)


def two_contexts(shm: mori.shmem.Shmem) -> None:
    """Another Shmem over the same context, with teams of its own; functions still find theirs."""
    with mori.shmem.Shmem(shm.context, max_teams=2) as other:
        word = other.zeros((1,), torch.int64)
        for number in range(10):
            shm.atomic_inc(word, 0)
            other.barrier()
            shm.barrier()
            assert other.atomic_fetch(word, 0) == (number + 1) * shm.n_pes
            shm.barrier()
            mori.shmem.sync(other.team_world)


@pytest.mark.parametrize("size", [1, 2])
def test_two_shmems(size: int) -> None:
    run_ranks(on_gpu, size, two_contexts, False, timeout=100)


def expire(rank: int, size: int, uid: bytes) -> tuple[object, ...]:
    with (
        mori.init(uid=uid, rank=rank, world_size=size, device="cuda:0", timeout=1, heap_bytes=16 << 20) as ctx,
        mori.shmem.Shmem(ctx) as shm,
    ):
        word = shm.full((1,), 3, torch.int64)
        shm.signal_wait_until(word, "ge", 5, from_pe=0)  # returns: it is queued
        with pytest.raises(mori.TimeoutError) as caught:
            ctx.synchronize()
        with pytest.raises(mori.TimeoutError):
            shm.quiet()
        return caught.value.what, caught.value.peer, caught.value.expected, caught.value.seen


def test_a_wait_ends_with_its_deadline() -> None:
    assert run_ranks(expire, 1, timeout=60) == [("shmem.signal_wait_until", 0, 5, 3)]


def triton_work(shm: mori.shmem.Shmem, name: str) -> Any:
    sys.path.insert(0, str(Path(__file__).parent))
    import triton_cases

    return getattr(triton_cases, name)(shm.context, shm)


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")
@pytest.mark.parametrize("spread", [False, pytest.param(True, marks=several_gpus)], ids=["one-gpu", "several-gpus"])
def test_triton(spread: bool) -> None:
    run_ranks(on_gpu, 2 if spread else 1, triton_work, spread, "run", timeout=170)
