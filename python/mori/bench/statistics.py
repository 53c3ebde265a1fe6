# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""From the ranks' clocks to one number per iteration, and from rows to bytes.

One iteration lasts until its slowest rank is done. On one host all CPU ranks read one clock, so an iteration
is the time from when the first rank starts to when the last one ends: with more ranks than cores a rank that
has not been scheduled yet counts as waiting, for the measured library, its peers and the copy limit alike. On
GPUs it is the longest of the ranks' own times between two events in their streams.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Spans", "Summary", "Traffic", "gbps", "slowest_us", "summarise", "traffic"]


@dataclasses.dataclass(frozen=True)
class Spans:
    """One rank's iterations of one operation. Without a clock shared by the ranks, starts are 0."""

    starts_ns: list[int]
    ends_ns: list[int]
    shared_clock: bool = True

    def divided(self, calls: int) -> Spans:
        """One call's share of windows that hold so many of them, by this rank's own times."""
        spans = zip(self.starts_ns, self.ends_ns, strict=True)
        return Spans(self.starts_ns, [a + round((b - a) / calls) for a, b in spans], shared_clock=False)


@dataclasses.dataclass(frozen=True)
class Summary:
    median_us: float
    p10_us: float
    p90_us: float


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Bytes of one operation, the mean of the ranks: received including from itself, and leaving the rank."""

    algo_bytes: float
    wire_bytes: float


def slowest_us(ranks: Sequence[Spans]) -> NDArray[np.float64]:
    """Microseconds of each iteration, given every rank's spans."""
    starts = np.array([spans.starts_ns for spans in ranks], dtype=np.int64)
    ends = np.array([spans.ends_ns for spans in ranks], dtype=np.int64)
    if all(spans.shared_clock for spans in ranks):
        return np.asarray((ends.max(axis=0) - starts.min(axis=0)) / 1e3)
    return np.asarray((ends - starts).max(axis=0) / 1e3)


def summarise(us: NDArray[np.float64]) -> Summary:
    p10, median, p90 = (float(v) for v in np.percentile(us, (10, 50, 90)))
    return Summary(median_us=median, p10_us=p10, p90_us=p90)


def traffic(rows: NDArray[np.int64], row_bytes: int) -> Traffic:
    """Bytes of an exchange of `rows` [source, destination], or of its transpose."""
    ranks = rows.shape[0]
    everything, kept = int(rows.sum()), int(np.trace(rows))
    return Traffic(everything * row_bytes / ranks, (everything - kept) * row_bytes / ranks)


def gbps(byte_count: float, us: float) -> float:
    """Gigabytes (10^9) per second."""
    return byte_count / (us * 1e3) if us > 0 else 0.0
