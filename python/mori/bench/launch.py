# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Starts the ranks of `mori bench ep`, or joins torchrun's, and makes the report from what they bring home.

Ranks are processes, each with a GPU of its own on a machine that has enough. With fewer GPUs than ranks they
are threads of one process with a stream each, because a GPU does not run kernels of different processes at
the same time and ranks wait for each other inside kernels.
"""

from __future__ import annotations

import datetime
import itertools
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import config
from ..errors import ConfigError
from . import peers, trace
from .ep import OPS, Extra, Opener, RankResult, open_mori, run_rank
from .machine import commit, gpu_count, machine, version
from .report import Meta, Report, Row, build_row
from .settings import EpSettings
from .statistics import Spans, Traffic, gbps, slowest_us, summarise, traffic
from .verify import Mismatch
from .workload import make

__all__ = ["assemble", "run_ep"]


def run_ep(settings: EpSettings, *, pulse: str = "", opener: Opener = open_mori, mode: str = "") -> Report | None:
    """Runs the bench and gives its report; None on ranks other than 0 of a torchrun.

    `pulse` is the path that progress.draw() gave. `mode` (process or thread) is chosen by the device if
    empty. Raises verify.Mismatch if any result is wrong, testing.RankError with the traceback of a rank that
    failed.
    """
    make(settings)  # refuses a routing file that does not fit, before anything starts
    started = time.monotonic()
    gpus = gpu_count() if settings.device == "cuda" else 0
    if settings.device == "cuda" and gpus == 0:
        raise ConfigError("device='cuda': torch finds no CUDA GPU here; `mori doctor` tells what is missing")
    if config.launched():
        return _join_torchrun(settings, gpus, pulse, opener)
    from ..testing import RankError, run_ranks

    crowded = settings.device == "cuda" and gpus < settings.ranks
    mode = mode or ("thread" if crowded else "process")
    with tempfile.TemporaryDirectory(prefix="mori-bench-") as folder:
        store = str(Path(folder, "store"))
        extra = Extra(devices=gpus, pulse=pulse, store=store, threads=mode == "thread")
        try:
            results = run_ranks(
                run_rank, settings.ranks, settings, extra, opener, mode=mode, timeout=settings.timeout_s
            )
        except RankError as error:
            if isinstance(error.__cause__, Mismatch):
                raise error.__cause__ from None
            guilty = _guilty(error.tracebacks)
            text = "\n".join(f"rank {rank} of {settings.ranks} failed:\n{error.tracebacks[rank]}" for rank in guilty)
            raise RankError(text, error.tracebacks) from error.__cause__
    notes: list[str] = []
    mpi: list[dict[str, Spans]] = []
    if "mpi" in settings.peers:
        mpi, note = peers.mpi_peer(settings, max(10.0, settings.timeout_s - (time.monotonic() - started)))
        notes += [note] if note else []
    if crowded:
        shared = f"{gpus} GPU{'s' if gpus > 1 else ''}"
        notes.append(f"{settings.ranks} ranks share {shared}: threads of one process, a stream each")
    return assemble(settings, results, mpi, mode="threads" if mode == "thread" else "processes", gpus=gpus, notes=notes)


def _guilty(tracebacks: dict[int, str]) -> list[int]:
    """Ranks that failed by themselves; those that only missed them would bury the cause."""
    consequences = ("PeerLost", "TimeoutError", "BrokenBarrierError", "did not end in time")
    first = [
        rank for rank, text in tracebacks.items() if not any(c in text.strip().splitlines()[-1] for c in consequences)
    ]
    return first or list(tracebacks)


def _join_torchrun(settings: EpSettings, gpus: int, pulse: str, opener: Opener) -> Report | None:
    import torch.distributed as dist

    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=settings.timeout_s))
    try:
        rank, size = dist.get_rank(), dist.get_world_size()
        if size != settings.ranks:
            raise ConfigError(f"ranks={settings.ranks} differs from the launcher's world of {size}")
        if settings.device == "cuda" and gpus < size:
            raise ConfigError(
                f"device='cuda': {gpus} GPUs for {size} processes, whose kernels would not run together; "
                "start without torchrun, and the ranks become threads of one process"
            )
        result = run_rank(rank, size, None, settings, Extra(devices=gpus, pulse=pulse), opener)
        results: list[Any] | None = [None] * size if rank == 0 else None
        dist.gather_object(result, results)
        if results is None:
            return None
        notes = ["mpi skipped: the ranks are torchrun's"] if "mpi" in settings.peers else []
        return assemble(settings, results, [], mode="torchrun", gpus=gpus, notes=notes)
    finally:
        dist.destroy_process_group()


def assemble(
    settings: EpSettings,
    results: Sequence[RankResult],
    mpi: Sequence[dict[str, Spans]],
    *,
    mode: str,
    gpus: int,
    notes: list[str],
) -> Report:
    """The report of a run whose results were all found right."""
    workload = make(settings)
    rows = workload.rows()
    out = traffic(rows, settings.wire.row_bytes(settings.hidden))
    back = traffic(rows, settings.combine_format.row_bytes(settings.hidden))
    bytes_of = {
        "dispatch": out,
        "combine": back,
        "round_trip": Traffic(out.algo_bytes + back.algo_bytes, out.wire_bytes + back.wire_bytes),
    }
    timings = {key: summarise(slowest_us([r.spans[key] for r in results])) for key in results[0].spans}
    if mpi:
        timings |= {("mpi", op): summarise(slowest_us([rank[op] for rank in mpi])) for op in mpi[0]}
    limits = _limits({op: timing.median_us for (impl, op), timing in timings.items() if impl == "copy"}, bytes_of)
    table: list[Row] = []
    for impl, window, op in itertools.product(("mori", *settings.peers), ("single", "steady"), OPS):
        key = impl, op if window == "single" else f"{window} {op}"
        if key not in timings:
            continue
        returned = settings.format.combine
        dtype = {"dispatch": settings.label, "combine": returned}.get(op)
        pair = settings.label if returned == settings.label else f"{settings.label}+{returned}"
        row = build_row(
            timings[key],
            bytes_of[op],
            limits.get(op),
            impl=impl,
            op=op,
            dtype=dtype or pair,
            ranks=settings.ranks,
            tokens=settings.tokens,
            hidden=settings.hidden,
            verified=True,
            layout=settings.layout if impl == "mori" else None,
            window=window,
            sms=results[0].sms if impl == "mori" else None,
            graph=settings.graph if impl == "mori" and settings.device == "cuda" else None,
        )
        table.append(row)
    heard = [*dict.fromkeys(note for result in results for note in result.notes), *notes]
    meta = _meta(settings, results[0].device, mode, gpus, heard, workload.description, bool(limits))
    if settings.trace:
        trace.write(Path(settings.trace), [r.traces for r in results])
    sent = (rows * settings.wire.row_bytes(settings.hidden)).tolist()
    return Report(bench="ep", meta=meta, rows=table, sent_bytes=sent)


def _limits(copy_us: dict[str, float], bytes_of: dict[str, Traffic]) -> dict[str, float]:
    """GB/s of the plain copy. A round trip's limit is both copies, one after the other."""
    if not copy_us:
        return {}
    limits = {op: gbps(bytes_of[op].wire_bytes, us) for op, us in copy_us.items()}
    limits["round_trip"] = gbps(bytes_of["round_trip"].wire_bytes, sum(copy_us.values()))
    return limits


def _meta(
    settings: EpSettings, device: str, mode: str, gpus: int, notes: list[str], routing: str, has_limit: bool
) -> Meta:
    import torch

    paths = {"cpu": "memcpy from private memory into the peers' mapped shared memory"}
    limit = paths.get(settings.device, "copy_ into the peers' memory" if gpus > 1 else "copy_ within one GPU's memory")
    return Meta(
        commit=commit(),
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        machine=machine(),
        device=device,
        ranks=settings.ranks,
        mode=mode,
        topk=settings.topk,
        experts=settings.experts,
        layout=settings.layout,
        routing=routing,
        iters=settings.iters,
        seed=settings.seed,
        clock="host" if settings.device == "cpu" else "events",
        cores=os.cpu_count() or 1,
        version=version(),
        torch=str(torch.__version__),
        gpus=gpus or None,
        limit=limit if has_limit else None,
        notes=notes,
    )
