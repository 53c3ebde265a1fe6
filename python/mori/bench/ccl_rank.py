# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""One rank of `mori bench ccl`: MoRI's collectives, a peer of torch.distributed, and the copy that is their limit.

Every case is checked before it is timed and after; in each round all implementations have their turn, so that what the
machine does meanwhile meets them alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from . import ccl_data
from .ccl_settings import CclCase, CclSettings
from .clock import STEADY, HostClock, SpinBarrier, repeated
from .cores import bind
from .progress import Pulse
from .statistics import Spans

__all__ = ["LIMIT", "SYMMETRIC", "CclResult", "measure", "run_rank"]

LIMIT = "limit"
SYMMETRIC = "mori sym"  # operands in symmetric memory, which peers read where they are
_STEADY_BYTES = 64 << 10  # calls of more are timed one by one only


@dataclasses.dataclass
class CclResult:
    """Spans by implementation, index of the case, and "single" or "steady"."""

    spans: dict[tuple[str, int, str], Spans]


def run_rank(rank: int, world_size: int, uid: bytes, settings: CclSettings, store: str, pulse: str) -> CclResult:
    import torch

    import mori

    bind(rank)
    torch.set_num_threads(1)
    progress = Pulse(pulse if rank == 0 else "")
    with mori.init(
        uid=uid, rank=rank, world_size=world_size, device="cpu", timeout=settings.timeout_s, heap_bytes=64 << 20
    ) as ctx:
        comm = mori.ccl.Communicator(ctx)
        gloo = "gloo" in settings.peers
        if gloo:
            import torch.distributed as dist

            limit = timedelta(seconds=settings.timeout_s)
            dist.init_process_group("gloo", f"file://{store}", limit, rank=rank, world_size=world_size)
        clock = HostClock(SpinBarrier(ctx))
        result = CclResult({})
        cases = settings.cases()
        progress.phase("cases", len(cases))
        for index, case in enumerate(cases):
            calls = dict(_implementations(comm, case, settings, gloo))
            for window, spans in measure(clock, calls, settings.calls(case), case.bytes <= _STEADY_BYTES).items():
                result.spans[window[0], index, window[1]] = spans
            ctx.barrier()
            progress.step()
        if gloo:
            dist.destroy_process_group()
        return result


def measure(clock: Any, calls: dict[str, Callable[[], Any]], rounds: int, steady: bool) -> dict[tuple[str, str], Spans]:
    """Spans by implementation and window. Collective."""
    clock.drop()
    for round_ in range(-2, rounds):
        if round_ == 0:
            clock.drop()
        for name, call in calls.items():
            for _ in range(3 if steady else 1):
                call()  # what is timed follows its own kind, as in MPI's program: gloo's threads are asleep again
            clock.time(name, call)
    found = {(name, "single"): spans for name, spans in clock.spans().items()}
    if steady:
        clock.drop()
        for _ in range(max(4, rounds // 5)):
            for name, call in calls.items():
                call()
                clock.time(name, repeated(call))
        found |= {(name, "steady"): spans.divided(STEADY) for name, spans in clock.spans().items()}
    return found


def _implementations(comm: Any, case: CclCase, settings: CclSettings, gloo: bool) -> Iterator[Any]:
    """Each checked once here; names and calls. Collective."""
    import numpy as np
    import torch

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "int32": torch.int32}[settings.dtype]
    n, rank, elements = comm.size, comm.rank, case.elements(settings.dtype)
    x = torch.from_numpy(ccl_data.source(case, n, rank, elements, settings.seed)).to(dtype)
    want = ccl_data.wanted(case, n, rank, elements, settings.seed)
    out = torch.zeros(elements if want is None else len(want), dtype=dtype)
    shared, result = (comm.ctx.empty(tensor.shape, dtype).copy_(tensor) for tensor in (x, out))
    makers = {"mori": (out, _mori(comm, case, x, out)), SYMMETRIC: (result, _mori(comm, case, shared, result))}
    if gloo:
        makers["gloo"] = out, _gloo(case, x, out, n)
    for name, (into, (prepare, call)) in makers.items():
        for _ in range(2):
            into.zero_()
            prepare()
            call()
            ccl_data.check(name, case, rank, into.to(torch.int32).numpy(), want)
        yield name, call
    # The least that a rank does: it reads its larger side, or writes it, once.
    here, there = np.zeros(case.bytes, np.uint8), np.zeros(case.bytes, np.uint8)
    yield LIMIT, lambda: np.copyto(there, here)


def _nothing() -> None:
    pass


def _mori(comm: Any, case: CclCase, x: Any, out: Any) -> tuple[Callable[[], Any], Callable[[], Any]]:
    return {
        "all_reduce": (_nothing, lambda: comm.all_reduce(x, out=out, algorithm=case.algorithm)),
        "all_gather": (_nothing, lambda: comm.all_gather(x, out=out)),
        "reduce_scatter": (_nothing, lambda: comm.reduce_scatter(x, out=out)),
        "all_to_all": (_nothing, lambda: comm.all_to_all(x, out=out)),
        "reduce": (_nothing, lambda: comm.reduce(x, 0, out=out)),
        "broadcast": (lambda: out.copy_(x), lambda: comm.broadcast(out, 0)),
    }[case.op]


def _gloo(case: CclCase, x: Any, out: Any, n: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """In place where torch.distributed is. What is timed may overflow: values are checked before."""
    import torch.distributed as dist

    def fill() -> None:
        out.copy_(x)

    return {
        "all_reduce": (fill, lambda: dist.all_reduce(out)),
        "all_gather": (_nothing, lambda: dist.all_gather_into_tensor(out, x)),
        "reduce_scatter": (_nothing, lambda: dist.reduce_scatter_tensor(out, x)),
        "all_to_all": (_nothing, lambda: dist.all_to_all_single(out, x)),
        "reduce": (fill, lambda: dist.reduce(out, 0)),
        "broadcast": (fill, lambda: dist.broadcast(out, 0)),
    }[case.op]
