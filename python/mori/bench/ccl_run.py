# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Runs `mori bench ccl`: starts the ranks, then MPI if it was asked for, and makes one report of it."""

from __future__ import annotations

import datetime
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from .ccl_rank import LIMIT, SYMMETRIC, CclResult, run_rank
from .ccl_settings import OPS, CclSettings
from .machine import commit, machine, version
from .peers import mpi_peer
from .report import Meta, Report, Row, build_row
from .statistics import Spans, Traffic, gbps, slowest_us, summarise
from .verify import Mismatch

__all__ = ["assemble", "run_ccl"]


def run_ccl(settings: CclSettings, *, pulse: str = "") -> Report:
    """Raises verify.Mismatch if any result is wrong, testing.RankError with the traceback of a rank that failed."""
    from ..testing import RankError, run_ranks

    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mori-bench-") as folder:
        store = str(Path(folder, "store"))
        try:
            results = run_ranks(run_rank, settings.ranks, settings, store, pulse, timeout=settings.timeout_s)
        except RankError as error:
            if isinstance(error.__cause__, Mismatch):
                raise error.__cause__ from None
            raise
    notes: list[str] = []
    mpi: list[dict[str, Spans]] = []
    if "mpi" in settings.peers:
        left_s = max(10.0, settings.timeout_s - (time.monotonic() - started))
        mpi, note = mpi_peer(settings, left_s, "mori.bench.ccl_mpi")
        notes += [note] if note else []
    return assemble(settings, results, mpi, notes=notes)


def assemble(
    settings: CclSettings, results: Sequence[CclResult], mpi: Sequence[dict[str, Spans]], *, notes: list[str]
) -> Report:
    """The report of a run whose results were all found right."""
    rows: list[Row] = []
    for index, case in enumerate(settings.cases()):
        for window in ("single", "steady"):
            times = {
                name: slowest_us([result.spans[name, index, window] for result in results])
                for name in ("mori", SYMMETRIC, "gloo", LIMIT)
                if (name, index, window) in results[0].spans
            }
            if mpi and f"{index} {window}" in mpi[0]:
                times["mpi"] = slowest_us([rank[f"{index} {window}"] for rank in mpi])
            if LIMIT not in times:
                continue
            limit_us = summarise(times.pop(LIMIT)).median_us
            bus = case.bytes * OPS[case.op].factor(settings.ranks)
            for name, us in times.items():
                row = build_row(
                    summarise(us), Traffic(case.bytes, bus), gbps(bus, limit_us),
                    impl=name, op=case.op, ranks=settings.ranks, dtype=settings.dtype, bytes=case.bytes, window=window,
                    layout=case.algorithm if name in ("mori", SYMMETRIC) and case.op == "all_reduce" else None,
                    samples=len(us), verified=True,
                )  # fmt: skip
                row.limit_us = float(f"{limit_us:.4g}")
                rows.append(row)
    meta = Meta(
        commit=commit(),
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        machine=machine(),
        device="cpu",
        ranks=settings.ranks,
        mode="processes",
        iters=settings.iters,
        seed=settings.seed,
        clock="host",
        cores=os.cpu_count() or 1,
        version=version(),
        limit="a copy of so many bytes in every rank's private memory, all ranks at once",
        notes=notes,
    )
    return Report(bench="ccl", meta=meta, rows=rows)
