# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""One picture of a report: who sends how much to whom, and how fast each operation is beside its limit.

Needs matplotlib (`pip install matplotlib`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .report import Report

__all__ = ["draw", "require"]

_COLOURS = {"mori": "#1f6f8b", "gloo": "#b0a990", "mpi": "#8c8c9c", "nccl": "#7ba05b"}


def require() -> None:
    """ConfigError if there is nothing to draw with: to be told before a run, not after it."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ConfigError("plot needs matplotlib, which is not installed: pip install matplotlib") from None


def draw(report: Report, file: Path) -> None:
    """Writes the picture; its format follows the file's ending (png, svg, pdf)."""
    require()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    meta, first = report.meta, report.rows[0]
    figure.suptitle(
        f"Expert-parallel exchange over {meta.ranks} ranks: {first.tokens} tokens of {first.hidden} elements "
        f"each, top-{meta.topk} of {meta.experts} experts\n"
        f"{meta.machine if meta.clock == 'host' else meta.device}",
        fontsize=11,
    )
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.25))
    _heat_map(figure, left, report)
    _bars(right, report)
    figure.savefig(file, dpi=130)


def _heat_map(figure: Any, axes: Any, report: Report) -> None:
    megabytes = [[value / 1e6 for value in row] for row in report.sent_bytes]
    image = axes.imshow(megabytes, cmap="YlGnBu", vmin=0)
    ranks = len(megabytes)
    if ranks <= 12:
        middle = max(max(row) for row in megabytes) / 2
        for source, row in enumerate(megabytes):
            for target, value in enumerate(row):
                colour = "white" if value > middle else "black"
                axes.text(target, source, f"{value:.1f}", ha="center", va="center", fontsize=8, color=colour)
        axes.set_xticks(range(ranks))
        axes.set_yticks(range(ranks))
    axes.set(title="One dispatch: MB from rank (row) to rank (column)", xlabel="to rank", ylabel="from rank")
    figure.colorbar(image, ax=axes, label="MB", shrink=0.8)


def _bars(axes: Any, report: Report) -> None:
    ops = list(dict.fromkeys(row.op for row in report.rows))
    impls = list(dict.fromkeys(row.impl for row in report.rows))
    height = 0.8 / len(impls)
    for row in report.rows:
        place = ops.index(row.op) + (impls.index(row.impl) - (len(impls) - 1) / 2) * height
        label = row.impl if row.op == ops[0] else None
        axes.barh(place, row.wire_gbps, height * 0.9, color=_COLOURS.get(row.impl, "#999999"), label=label)
        share = "" if row.ratio is None else f", {row.ratio:.0%} of the limit"
        axes.text(
            row.wire_gbps,
            place,
            f" {row.wire_gbps:.2f} GB/s, {_time(row.median_us)}{share}",
            va="center",
            fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )
    for index, op in enumerate(ops):
        limit = next((row.limit_gbps for row in report.rows if row.op == op and row.limit_gbps), None)
        if limit:
            label = "limit: a plain copy of the same bytes" if index == 0 else None
            axes.plot([limit, limit], [index - 0.45, index + 0.45], color="#c0392b", linewidth=2, label=label)
    widest = max([row.wire_gbps for row in report.rows] + [row.limit_gbps or 0 for row in report.rows])
    axes.set_xlim(0, (widest or 1) * 1.55)
    axes.set_yticks(range(len(ops)), [op.replace("_", " ") for op in ops])
    axes.invert_yaxis()
    axes.set(title="Bytes that left each rank per second (longer is faster)", xlabel="GB/s per rank")
    axes.legend(loc="lower right", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def _time(us: float) -> str:
    return f"{us / 1000:.1f} ms" if us >= 1000 else f"{us:.1f} us"
