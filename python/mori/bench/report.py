# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What a bench hands out: rows of one shape for all products, as JSON and as a table in the terminal.

    {"bench": "ep", "meta": {...}, "rows": [{"impl": "mori", "op": "dispatch", "median_us": ..., ...}, ...]}

A field that does not apply is absent. `wire_gbps / limit_gbps` is `ratio`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from .statistics import Summary, Traffic, gbps

__all__ = ["Meta", "Report", "Row", "build_row", "table", "write_json"]


class Row(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """One measured operation of one implementation."""

    impl: str
    op: str  # dispatch, combine, round_trip; write, read
    ranks: int
    median_us: float  # of the slowest rank in each iteration, as are p10_us and p90_us
    p10_us: float
    p90_us: float
    algo_bytes: int  # mean per rank: received, from itself too
    wire_bytes: int  # mean per rank: sent to other ranks
    algo_gbps: float
    wire_gbps: float
    verified: bool
    dtype: str | None = None
    tokens: int | None = None  # per rank
    hidden: int | None = None
    bytes: int | None = None  # of one operation inside a kernel
    scope: str | None = None  # who calls it together: thread, warp, block
    block_bytes: int | None = None
    batch: int | None = None  # blocks of a transfer
    blocks: str | None = None  # random or contiguous
    backend: str | None = None  # how bytes travelled
    p99_us: float | None = None
    samples: int | None = None  # transfers that were timed
    layout: str | None = None  # of received rows
    window: str | None = None  # single: one call between two marks; steady: a share of many calls in one window
    limit_gbps: float | None = None
    limit_us: float | None = None  # of one operation, where that says more than GB/s
    ratio: float | None = None
    million_per_s: float | None = None  # operations of all lanes together
    sms: int | None = None
    graph: bool | None = None


class Meta(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """Where, when and on what a report was measured."""

    commit: str
    date: str  # ISO 8601, UTC
    machine: str
    device: str
    ranks: int
    mode: str  # processes, threads, torchrun
    iters: int
    seed: int
    clock: str  # host or events
    cores: int
    version: str
    topk: int | None = None
    experts: int | None = None
    layout: str | None = None
    routing: str | None = None
    torch: str | None = None
    gpus: int | None = None
    limit: str | None = None  # what was copied to find the limit
    notes: list[str] = []


class Report(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    bench: str
    meta: Meta
    rows: list[Row]
    sent_bytes: list[list[int]] = []  # [source][destination] of one dispatch


def build_row(summary: Summary, bytes_: Traffic, limit_gbps: float | None, **fields: Any) -> Row:
    """A row from times and bytes; the ratio is left out where nothing left the rank."""
    wire = gbps(bytes_.wire_bytes, summary.median_us)
    limit = limit_gbps if limit_gbps and bytes_.wire_bytes else None
    return Row(
        median_us=round(summary.median_us, 3),
        p10_us=round(summary.p10_us, 3),
        p90_us=round(summary.p90_us, 3),
        algo_bytes=round(bytes_.algo_bytes),
        wire_bytes=round(bytes_.wire_bytes),
        algo_gbps=_digits(gbps(bytes_.algo_bytes, summary.median_us)),
        wire_gbps=_digits(wire),
        limit_gbps=_digits(limit) if limit else None,
        ratio=_digits(wire / limit) if limit else None,
        **fields,
    )


def _us(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}"


def _digits(value: float) -> float:
    return float(f"{value:.5g}")


def write_json(report: Report, file: Path) -> None:
    file.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")


_HEADINGS = ("impl", "op", "median\nus", "p10\np90", "", "MB", "GB/s", "limit\nGB/s", "ratio", "verified")


def table(report: Report) -> Any:
    """The rows as a rich table of less than 80 columns; of two lines each, algorithm and wire bytes."""
    from rich import box
    from rich.table import Table

    meta, first = report.meta, report.rows[0]
    out = Table(
        title=f"{report.bench}: {meta.ranks} ranks, {first.tokens} tokens each, hidden {first.hidden}, "
        f"top-{meta.topk} of {meta.experts}, {meta.device}",
        caption="us: of the slowest rank. MB and GB/s: mean per rank; algo: received, own rows too; "
        "wire: sent to others. steady: a call's share of many in one window. limit: a plain copy of the wire bytes. "
        "ratio: wire to limit.",
        box=box.SIMPLE,
        padding=(0, 1, 0, 0),
    )
    for heading in _HEADINGS:
        left = heading in ("impl", "op", "", "verified")
        out.add_column(heading, justify="left" if left else "right", no_wrap=True)
    for row in report.rows:
        rates = ("" if v is None else f"{v:.2f}" for v in (row.limit_gbps, row.ratio))
        out.add_row(
            row.impl,
            f"{row.op.replace('_', ' ')}\n{row.dtype}{' steady' if row.window == 'steady' else ''}",
            _us(row.median_us),
            f"{_us(row.p10_us)}\n{_us(row.p90_us)}",
            "algo\nwire",
            f"{row.algo_bytes / 1e6:.2f}\n{row.wire_bytes / 1e6:.2f}",
            f"{row.algo_gbps:.2f}\n{row.wire_gbps:.2f}",
            *(f"\n{rate}" for rate in rates),
            "yes" if row.verified else "NO",
            style="bold" if row.impl == "mori" else None,
        )
    return out
