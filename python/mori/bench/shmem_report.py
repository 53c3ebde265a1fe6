# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The report of `mori bench shmem` in a terminal, and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .io_report import size_text
from .report import Report, Row

__all__ = ["draw", "shmem_table"]

_COLOURS = {"mori": "#1f6f8b", "nvshmem": "#7ba05b"}
_DASHES = {"thread": ":", "warp": "--", "block": "-"}


def _us(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _rate(row: Row) -> str:
    if row.million_per_s is not None:
        return f"{row.million_per_s:.3g} M/s"
    return f"{row.wire_gbps:.2f}" if row.wire_bytes else ""


def shmem_table(report: Report) -> Any:
    """Rows as a rich table of less than 80 columns."""
    from rich import box
    from rich.table import Table

    out = Table(
        title=f"shmem: {report.meta.ranks} ranks, {report.meta.device}, {report.meta.mode}",
        caption="us: one operation; one way, of p and put signal. "
        f"limit: {report.meta.limit}. ratio: the limit's time to it.",
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
    )
    for heading in ("op", "bytes", "by", "impl", "median\nus", "p90\nus", "GB/s", "limit\nus", "ratio"):
        left = heading in ("op", "by", "impl")
        out.add_column(heading, justify="left" if left else "right", no_wrap=True)
    previous = ""
    for row in report.rows:
        op = "" if row.op == previous else row.op.replace("_", " ").replace("paired", "pair")
        previous = row.op
        by = f"{row.sms} x {row.scope}" if (row.sms or 1) > 1 else (row.scope or "").partition("ueue")[0]  # 8 q
        out.add_row(
            op, size_text(row.bytes) if row.bytes else "", by, row.impl, _us(row.median_us), _us(row.p90_us),
            _rate(row), _us(row.limit_us or 0), f"{row.ratio:.2f}" if row.ratio else "",
            style="bold" if row.impl == "mori" else None,
        )  # fmt: skip
    return out


def draw(report: Report, file: Path) -> None:
    """GB/s of put and get, and microseconds of everything else, against size."""
    from .plot import require

    require()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(
        f"mori.shmem inside kernels, {report.meta.ranks} ranks, {report.meta.device}\n{report.meta.machine}",
        fontsize=11,
    )
    left, right = figure.subplots(1, 2)
    for op, mark in (("put", "o"), ("get", "s")):
        _lines(left, [r for r in report.rows if r.op == op], mark, lambda row: row.wire_gbps)
    rows = [r for r in report.rows if r.op == "put" and r.impl == "mori" and r.limit_us]
    sizes = {row.bytes or 0: row.limit_gbps or 0.0 for row in rows}
    if sizes:
        left.plot(
            list(sizes), list(sizes.values()), color="#c0392b", label=f"limit of put: {report.meta.limit}".split(";")[0]
        )
    others = dict.fromkeys(r.op for r in report.rows if r.bytes and r.op not in ("put", "get"))
    for op, mark in zip(others, "o^v<>DXPs*", strict=False):
        _lines(right, [r for r in report.rows if r.op == op], mark, lambda row: row.median_us)
    left.set(title="bandwidth", xlabel="bytes", ylabel="GB/s (higher is faster)", xscale="log", yscale="log")
    right.set(title="time", xlabel="bytes", ylabel="us (lower is faster)", xscale="log", yscale="log")
    for axes in (left, right):
        if axes.get_lines():
            axes.legend(fontsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=130)


def _lines(axes: Any, rows: list[Row], mark: str, value: Any) -> None:
    """One line for each implementation, scope and number of blocks."""
    for impl, scope, blocks in dict.fromkeys((r.impl, r.scope or "", r.sms) for r in rows):
        line = [r for r in rows if (r.impl, r.scope or "", r.sms) == (impl, scope, blocks)]
        axes.plot(
            [r.bytes or 0 for r in line], [value(r) for r in line], mark, ls=_DASHES.get(scope, "-"), markersize=4,
            color=_COLOURS.get(impl, "#999999"), alpha=0.4 + 0.6 * (blocks == max(r.sms or 1 for r in rows)),
            label=f"{impl} {line[0].op.replace('_', ' ')}, {blocks} x {scope}",
        )  # fmt: skip
