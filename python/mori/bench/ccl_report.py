# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The report of `mori bench ccl` in a terminal, and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .ccl_rank import SYMMETRIC
from .io_report import size_text
from .report import Report, Row

__all__ = ["ccl_table", "draw"]

_COLOURS = {"mori": "#1f6f8b", SYMMETRIC: "#5fb0c9", "gloo": "#c97b2a", "mpi": "#7ba05b"}


def ccl_table(report: Report) -> Any:
    """Rows as a rich table of less than 80 columns."""
    from rich import box
    from rich.table import Table

    meta = report.meta
    out = Table(
        title=f"ccl: {meta.ranks} ranks, {report.rows[0].dtype}, {meta.device}, {meta.mode}",
        caption="us: of the slowest rank; steady: a call's share of many in a row. alg, bus: GB/s as nccl-tests has "
        f"them. limit: {meta.limit}. mori sym: operands in symmetric memory. All results were checked.",
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
    )
    for heading in (
        "op",
        "bytes",
        "impl",
        "median\nus",
        "p90\nus",
        "steady\nus",
        "alg\nGB/s",
        "bus\nGB/s",
        "limit\nus",
    ):
        left = heading in ("op", "impl")
        out.add_column(heading, justify="left" if left else "right", no_wrap=True)
    steady = {_key(row): row.median_us for row in report.rows if row.window == "steady"}
    previous = ""
    for row in report.rows:
        if row.window != "single":
            continue
        op = "" if row.op == previous else row.op.replace("_", " ")
        previous = row.op
        impl = f"{row.impl} {row.layout}" if row.layout not in (None, "auto") else row.impl
        out.add_row(
            op, size_text(row.bytes or 0), impl, _us(row.median_us), _us(row.p90_us),
            _us(steady[_key(row)]) if _key(row) in steady else "", f"{row.algo_gbps:.2f}", f"{row.wire_gbps:.2f}",
            _us(row.limit_us or 0), style="bold" if row.impl.startswith("mori") else None,
        )  # fmt: skip
    return out


def _key(row: Row) -> tuple[Any, ...]:
    return row.op, row.bytes, row.impl, row.layout


def _us(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def draw(report: Report, file: Path) -> None:
    """busbw against size, a picture for each operation."""
    from .plot import require

    require()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ops = list(dict.fromkeys(row.op for row in report.rows))
    figure = Figure(figsize=(4.2 * len(ops), 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"mori.ccl, {report.meta.ranks} ranks, {report.meta.device}\n{report.meta.machine}", fontsize=11)
    for axes, op in zip(figure.subplots(1, len(ops), squeeze=False)[0], ops, strict=True):
        rows = [row for row in report.rows if row.op == op and row.window == "single"]
        for impl, layout in dict.fromkeys((row.impl, row.layout) for row in rows):
            line = [row for row in rows if (row.impl, row.layout) == (impl, layout)]
            label = f"{impl} {layout}" if layout not in (None, "auto") else impl
            axes.plot(
                [row.bytes for row in line], [row.wire_gbps for row in line], "o-", markersize=4, label=label,
                color=_COLOURS.get(impl) if layout in (None, "auto") else None,
            )  # fmt: skip
        limits = {row.bytes: row.limit_gbps for row in rows if row.impl == "mori" and row.limit_gbps}
        axes.plot(list(limits), list(limits.values()), color="#c0392b", label="limit")
        axes.set(title=op.replace("_", " "), xlabel="bytes", ylabel="busbw, GB/s", xscale="log", yscale="log")
        axes.legend(fontsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=130)
