# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The report of `mori bench io`: rows, a table for the terminal, a picture."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np

from .io_run import LIMITS, Times, row_of
from .io_settings import IoSettings
from .io_tools import spread
from .machine import commit, machine, version
from .report import Meta, Report, Row

__all__ = ["assemble", "draw", "io_table"]

_PLAIN = {
    "memcpy": "memcpy of the same blocks by one thread into the target's shared memory",
    "process_vm": "process_vm_writev/readv of the same blocks, 512 a call",
    "stream": "the same blocks over one connected TCP socket, writev and readv, both ends spinning",
    "copy_engine": "one asynchronous copy of as many contiguous bytes by the GPU's copy engine",
    "perftest": "ib_write_bw/ib_read_bw with the same block size",
    "fio": "fio with the same block size, random, io_uring",
}
_COLOURS = {"mori": "#1f6f8b", "nixl": "#b0a990", "mooncake": "#8c8c9c", "perftest": "#7ba05b", "fio": "#7ba05b"}


def assemble(
    settings: IoSettings, times: Times, paths: dict[str, str], tools: dict[tuple[str, int], float], notes: list[str]
) -> Report:
    cases = settings.cases()
    merged: Times = dict(times) | {key: spread(us) for key, us in tools.items()}
    impls = sorted(dict.fromkeys(name for name, _ in merged), key=lambda name: name != "mori")
    limit = next((name for name in (*LIMITS.values(), "perftest", "fio") if name in impls), None)
    rows: list[Row] = []
    for index, case in enumerate(cases):
        limit_us = float(np.median(merged[limit, index])) / 1e3 if limit and (limit, index) in merged else None
        for name in impls:
            if (name, index) not in merged or name in LIMITS.values():
                continue
            path = paths.get(name) or None
            rows.append(row_of(settings, case, merged[name, index], limit_us, impl=name, backend=path))
    meta = Meta(
        commit=commit(),
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        machine=machine(),
        device=" to ".join(dict.fromkeys(settings.memories)),
        ranks=2,
        mode=f"two machines, target at {settings.host}" if settings.host else "processes",
        iters=settings.iters,
        seed=settings.seed,
        clock="host",
        cores=_cores(),
        version=version(),
        limit=_PLAIN[limit] if limit else None,
        notes=notes,
    )
    return Report(bench="io", meta=meta, rows=rows)


def _cores() -> int:
    import os

    return os.cpu_count() or 1


def size_text(count: int) -> str:
    for suffix, unit in (("M", 1 << 20), ("K", 1 << 10)):
        if count >= unit and count % unit == 0:
            return f"{count // unit}{suffix}"
    return str(count)


def _us(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def io_table(report: Report) -> Any:
    """Rows as a rich table of less than 80 columns."""
    from rich import box
    from rich.table import Table

    first = report.rows[0]
    out = Table(
        title=f"io: {first.blocks} blocks, {report.meta.device}, {report.meta.mode}",
        caption="us: one transfer, called to complete. GB/s: of the median."
        + (f" limit: {report.meta.limit}." if report.meta.limit else ""),
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
    )
    for heading in (
        "op",
        "blocks",
        "impl",
        "path",
        "median\nus",
        "p90\nus",
        "p99\nus",
        "GB/s",
        "limit\nGB/s",
        "ratio",
    ):
        left = heading in ("op", "blocks", "impl", "path")
        out.add_column(heading, justify="left" if left else "right", no_wrap=True)
    previous = None
    for row in report.rows:
        key = (row.op, row.batch, row.block_bytes)
        name = ("", "") if key == previous else (row.op, f"{row.batch} x {size_text(row.block_bytes or 0)}")
        previous = key
        rates = ("" if v is None else f"{v:.2f}" for v in (row.limit_gbps, row.ratio))
        out.add_row(
            *name, row.impl, row.backend or "", _us(row.median_us), _us(row.p90_us),
            _us(row.p99_us or row.p90_us), f"{row.wire_gbps:.2f}", *rates,
            style="bold" if row.impl == "mori" else None,
        )  # fmt: skip
    return out


def draw(report: Report, file: Path) -> None:
    """Time of a transfer against the size of its blocks, beside the limit."""
    from .plot import require

    require()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ops = list(dict.fromkeys(row.op for row in report.rows))
    batches = list(dict.fromkeys(row.batch for row in report.rows))
    figure = Figure(figsize=(13, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    first = report.rows[0]
    figure.suptitle(f"Transfers of {first.blocks} blocks, {report.meta.device}\n{report.meta.machine}", fontsize=11)
    for axes, op in zip(figure.subplots(1, len(ops), squeeze=False)[0], ops, strict=True):
        for impl in dict.fromkeys(row.impl for row in report.rows):
            for style, batch in zip(("o-", "s--", "^:", "v-."), batches, strict=False):
                rows = [r for r in report.rows if (r.op, r.impl, r.batch) == (op, impl, batch)]
                sizes = [r.block_bytes for r in rows]
                label = f"{impl}, {batch} block{'s' if batch != 1 else ''}"
                colour = _COLOURS.get(impl, "#999999")
                axes.plot(sizes, [r.median_us for r in rows], style, color=colour, label=label)
                if impl == "mori" and all(r.limit_gbps for r in rows) and rows:
                    limit = [r.wire_bytes / ((r.limit_gbps or 1) * 1e3) for r in rows]
                    axes.plot(sizes, limit, style[1:], color="#c0392b", label=f"limit, {batch}")
        axes.set(
            title=op,
            xlabel="bytes of a block",
            ylabel="us for a transfer (lower is faster)",
            xscale="log",
            yscale="log",
        )
        axes.set_xticks(sorted({r.block_bytes or 0 for r in report.rows}))
        axes.set_xticklabels([size_text(size) for size in sorted({r.block_bytes or 0 for r in report.rows})])
        axes.minorticks_off()
        axes.legend(fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=130)
