# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Runs `mori bench shmem`: starts the ranks, then the peers that were asked for, and makes one report of it."""

from __future__ import annotations

import datetime
import os
import time
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..config import load
from ..errors import ConfigError
from . import nvshmem_peer
from .machine import commit, gpu_count, machine, version
from .report import Meta, Report, Row, build_row
from .shmem_rank import LIMIT, ShmemResult, run_rank, wire_bytes
from .shmem_settings import ShmemCase, ShmemSettings
from .statistics import Traffic, gbps, summarise
from .verify import Mismatch

__all__ = ["assemble", "run_shmem"]

_PLAIN = {
    "cpu": "memcpy from private memory into the peer's; bare stores, loads and additions; of collectives both",
    "cuda": "copies by a copy engine; bare stores, loads and additions; of collectives both",
}


def run_shmem(settings: ShmemSettings, *, pulse: str = "") -> Report:
    """Raises verify.Mismatch if any result is wrong, testing.RankError with the traceback of a rank that failed."""
    from ..testing import RankError, run_ranks

    started = time.monotonic()
    gpus = gpu_count() if settings.on_gpu else 0
    if settings.on_gpu and gpus == 0:
        raise ConfigError("device='cuda': torch finds no CUDA GPU here; `mori doctor` tells what is missing")
    crowded = settings.on_gpu and gpus < settings.ranks
    mode = "thread" if crowded else "process"
    try:
        results = run_ranks(run_rank, settings.ranks, settings, gpus, pulse, mode=mode, timeout=settings.timeout_s)
    except RankError as error:
        if isinstance(error.__cause__, Mismatch):
            raise error.__cause__ from None
        raise
    notes = [f"{settings.ranks} ranks share {gpus} GPU: threads of one process, a stream each"] if crowded else []
    if settings.over_queues:
        family = load().ibgda_provider
        family = "mlx5" if family == "auto" else family
        notes.append(f"queues in {family} format, served by a software NIC: a thread of each rank")
    theirs: dict[str, dict[int, NDArray[np.float64]]] = {}
    if "nvshmem" in settings.peers:
        left_s = max(10.0, settings.timeout_s - (time.monotonic() - started))
        theirs["nvshmem"], note = nvshmem_peer.run(settings, gpus, left_s)
        notes += [note] if note else []
    return assemble(settings, results, theirs, mode="threads" if crowded else "processes", gpus=gpus, notes=notes)


def assemble(
    settings: ShmemSettings,
    results: Sequence[ShmemResult],
    theirs: Mapping[str, Mapping[int, NDArray[np.float64]]],
    *,
    mode: str,
    gpus: int,
    notes: list[str],
) -> Report:
    """The report of a run whose results were all found right."""
    rows: list[Row] = []
    for index, case in enumerate(settings.cases()):
        limit_us = summarise(slowest_us(results, LIMIT, index)).median_us
        ours = {"mori": slowest_us(results, "mori", index)}
        ours |= {name: found[index] / 1e3 for name, found in theirs.items() if index in found}
        rows += [_row(settings, case, name, us, limit_us) for name, us in ours.items()]
    meta = Meta(
        commit=commit(),
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        machine=machine(),
        device=results[0].device,
        ranks=settings.ranks,
        mode=mode,
        iters=settings.iters,
        seed=settings.seed,
        clock="device",
        cores=os.cpu_count() or 1,
        version=version(),
        gpus=gpus or None,
        limit=_PLAIN[settings.device],
        notes=notes,
    )
    return Report(bench="shmem", meta=meta, rows=rows)


def slowest_us(results: Sequence[ShmemResult], impl: str, index: int) -> NDArray[np.float64]:
    """Microseconds of an operation in each sample, by the slowest of the ranks that took part."""
    taking_part = [r.times[impl, index] for r in results if (impl, index) in r.times]
    return np.asarray(np.max(np.stack(taking_part), axis=0) / 1e3)


def _row(settings: ShmemSettings, case: ShmemCase, impl: str, us: NDArray[np.float64], limit_us: float) -> Row:
    timing = summarise(us)
    lanes = case.blocks * case.warps * 32 if case.kind == "atomic" and case.blocks * case.warps > 1 else 1
    wire = wire_bytes(case, settings.ranks) if case.kind in ("bandwidth", "collective") else 0
    row = build_row(
        timing,
        Traffic(wire, wire),
        gbps(wire, limit_us),
        impl=impl,
        op=case.op,
        ranks=settings.ranks,
        backend=settings.transport,
        bytes=case.bytes or None,
        scope=f"{case.queues} queue" + "s" * (case.queues > 1) if case.kind == "rate" else case.scope,
        sms=case.blocks,
        samples=len(us),
        million_per_s=round(lanes / timing.median_us, 3) if case.kind in ("atomic", "rate") else None,
        verified=True,
    )
    row.median_us, row.p10_us, row.p90_us = (
        float(f"{v:.4g}") for v in (timing.median_us, timing.p10_us, timing.p90_us)
    )
    row.limit_us = float(f"{limit_us:.4g}")
    row.ratio = float(f"{limit_us / timing.median_us:.4g}") if timing.median_us > 0 else None
    return row
