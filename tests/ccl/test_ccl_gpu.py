# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Collectives on real GPUs: exact results, eager and in graphs. Ranks are threads that share a GPU, with a stream each,
or processes with a GPU each. `pytest -m gpu`.

Ranks on one GPU wait for each other's kernels, so everything that makes the driver wait (allocating, loading code,
copies to the host) is done before the first call and after the last one.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from ccl_ranks import DTYPES, algorithms, expected, same, small_integers
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
COUNTS = (1, 17, 5003, 300_001)
MODES = [pytest.param("thread", id="one-gpu"), pytest.param("process", id="a-gpu-each", marks=several_gpus)]


def on_gpu(rank: int, size: int, uid: bytes, spread: bool, work: Any) -> Any:
    index = rank % torch.cuda.device_count() if spread else 0
    torch.cuda.set_device(index)
    device = f"cuda:{index}"
    with (
        mori.init(uid=uid, rank=rank, world_size=size, device=device, timeout=20, heap_bytes=128 << 20) as ctx,
        torch.cuda.stream(torch.cuda.Stream()),
    ):
        return work(mori.ccl.Communicator(ctx, blocks=4))


def settled(comm: Any, *tensors: torch.Tensor) -> list[torch.Tensor]:
    """On the device, there for all ranks before anybody goes on."""
    there = [tensor.to(comm.ctx.device) for tensor in tensors]
    torch.cuda.synchronize()
    comm.ctx.mesh.barrier()
    return there


def exact(comm: Any) -> list[str]:
    wrong = []
    for dtype in DTYPES:
        for seed, count in enumerate(COUNTS):
            values = [small_integers(r, count, dtype, seed) for r in range(comm.size)]
            names = algorithms(dtype)
            x, *outs = settled(comm, values[comm.rank], *(torch.zeros(count, dtype=dtype) for _ in names))
            for name, out in zip(names, outs, strict=True):
                comm.all_reduce(x, out=out, algorithm=name)
            comm.ctx.barrier()
            wanted = expected(values, "sum")
            wrong += [f"{dtype} {count} {n}" for n, o in zip(names, outs, strict=True) if not same(o.cpu(), wanted)]
    return wrong


def moves(comm: Any) -> list[str]:
    n, me, wrong = comm.size, comm.rank, []
    for rows in (1, 1201, 100_000):
        parts = [torch.arange(rows * 3, dtype=torch.int32).view(rows, 3) + 1_000_000 * r for r in range(n)]
        theirs = [torch.arange(n * rows, dtype=torch.int32) + 1_000_000 * r for r in range(n)]
        whole = torch.cat(parts)
        a, b, c, gathered, exchanged, scattered = settled(
            comm, parts[me], theirs[me], whole, torch.zeros_like(whole), torch.zeros_like(theirs[me]), parts[me] * 0
        )
        comm.all_gather(a, out=gathered)
        comm.all_to_all(b, out=exchanged)
        comm.reduce_scatter(c, out=scattered)
        comm.broadcast(a, n - 1)
        comm.ctx.barrier()
        wanted = {
            "all_gather": (gathered, whole),
            "all_to_all": (exchanged, torch.cat([t[me * rows : (me + 1) * rows] for t in theirs])),
            "reduce_scatter": (scattered, parts[me] * n),
            "broadcast": (a, parts[-1]),
        }
        wrong += [f"{name} of {rows}" for name, (got, want) in wanted.items() if not same(got.cpu(), want)]
    return wrong


def graphs(comm: Any) -> list[str]:
    """Two graphs of several calls each, replayed in turn, with eager calls between."""
    wrong, count = [], 50_000
    x, y, z, eager = settled(comm, *(torch.zeros(count, dtype=torch.int32) for _ in range(4)))
    recorded = []
    for name in ("one_shot", "two_shot"):
        graph = torch.cuda.CUDAGraph()
        with _one_at_a_time, torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
            comm.all_reduce(x, out=y, algorithm=name)
            comm.all_reduce(y, out=z, algorithm="ll")
        recorded.append(graph)
        comm.ctx.mesh.barrier()
    for round_ in range(200):
        x.fill_(round_ + comm.rank)
        recorded[round_ % 2].replay()
        if round_ % 3 == 0:
            comm.all_reduce(x, out=eager)
    comm.ctx.barrier()
    once = 199 * comm.size + comm.size * (comm.size - 1) // 2
    if y.unique().tolist() != [once] or z.unique().tolist() != [once * comm.size]:
        wrong.append(f"{y.unique()[:3]} {z.unique()[:3]}, expected {once} and {once * comm.size}")
    return wrong


def fused(comm: Any) -> list[str]:
    """The bits of the single steps, and codes of the blocks."""
    wrong = []
    for dtype, rows, hidden in ((torch.bfloat16, 3, 8192), (torch.float16, 130, 1032), (torch.float32, 33, 4104)):
        generator = torch.Generator().manual_seed(rows)
        values = torch.randn(comm.size, rows, hidden, generator=generator).to(dtype)
        residual, weight = (
            torch.randn(rows, hidden, generator=generator).to(dtype),
            torch.rand(hidden, generator=generator).to(dtype),
        )
        x, before, w, total = settled(comm, values[comm.rank], residual, weight, torch.empty(rows, hidden, dtype=dtype))
        outs = settled(comm, *(torch.empty(rows, hidden, dtype=dtype) for _ in range(4)))
        comm.all_reduce(x, out=total)
        for i, name in enumerate(("one_shot", "two_shot")):
            comm.all_reduce_rms_norm(x, before, w, algorithm=name, out=outs[2 * i], residual_out=outs[2 * i + 1])
        comm.ctx.barrier()
        kept = total.cpu() + residual
        wanted = torch.nn.functional.rms_norm(kept.double(), (hidden,), weight.double(), 1e-6)
        bound = wanted.abs() * (torch.finfo(dtype).eps / 2 + 16 * torch.finfo(torch.float32).eps) + 1e-7
        for i, name in enumerate(("one_shot", "two_shot")):
            normed, new = outs[2 * i].cpu(), outs[2 * i + 1].cpu()
            if not same(new, kept) or not same(normed, outs[0].cpu()):
                wrong.append(f"{name} {dtype}: other bits")
            if ((normed.double() - wanted).abs() > bound).any():
                wrong.append(f"{name} {dtype}: too far from fp64")
    return wrong


def wires(comm: Any) -> list[str]:
    """A sum that every code holds exactly."""
    wrong = []
    for wire, limit in (("fp8", 448), ("int8", 127), ("int6", 31), ("int4", 7)):
        x = torch.zeros(40_960)
        x[::32], x[1::32], x[2::9] = limit, -limit, 3
        there, out = settled(comm, x.bfloat16(), torch.zeros(40_960, dtype=torch.bfloat16))
        comm.all_reduce(there, out=out, wire=wire)
        comm.ctx.barrier()
        if not torch.equal(out.cpu().float(), x * comm.size):
            wrong.append(wire)
    return wrong


def copies(comm: Any) -> list[str]:
    """No kernel: eager, and in a graph that is replayed with other contents."""
    quiet, count = mori.ccl.Communicator(comm.ctx, blocks=4, zero_cu_bytes=1 << 18), 100_000
    x, whole = settled(comm, torch.zeros(count), torch.zeros(comm.size * count))
    x.fill_(comm.rank + 1)
    quiet.all_gather(x, out=whole, zero_cu=True)
    comm.ctx.barrier()
    wrong = [] if whole.view(comm.size, count).mean(1).tolist() == [r + 1.0 for r in range(comm.size)] else ["eager"]
    graph = torch.cuda.CUDAGraph()
    with _one_at_a_time, torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        quiet.all_gather(x, out=whole, zero_cu=True)
    comm.ctx.mesh.barrier()
    for round_ in range(100):
        x.fill_(round_ + comm.rank)
        graph.replay()
    comm.ctx.barrier()
    if whole.view(comm.size, count).mean(1).tolist() != [99.0 + r for r in range(comm.size)]:
        wrong.append("in a graph")
    return wrong


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("work", [exact, moves, graphs, fused, wires, copies])
def test_on_gpus(work: Any, mode: str) -> None:
    assert run_ranks(on_gpu, 2, mode == "process", work, mode=mode, timeout=170) == [[], []]
