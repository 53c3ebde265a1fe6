# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Times of blocks as a trace that https://ui.perfetto.dev and chrome://tracing read: a process for each rank, a thread
for each block, a slice from each phase to the next.

Times count from the earliest start of any rank where all ranks' clocks agree within 50 ms, else from each rank's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

__all__ = ["PHASES", "events", "write"]

#: What a block does until it notes the word of the same number (enum EpTrace in src/ops/ep/ep_args.hpp).
PHASES = {
    "dispatch": ("", "count", "plan", "send rows", "raise flags", "wait for rows", "finish copies", ""),
    "combine": ("", "begin", "plan", "return rows", "raise flags", "wait for rows", "sum", ""),
}
_TOGETHER_NS = 50_000_000


def write(file: Path, ranks: Sequence[Mapping[str, Any]]) -> None:
    """`ranks`: for each rank the buffers of its operations, int64 [blocks, words], in ns."""
    names = [
        {"ph": "M", "name": "process_name", "pid": rank, "tid": 0, "args": {"name": f"rank {rank}"}}
        for rank in range(len(ranks))
    ]
    file.write_bytes(msgspec.json.encode({"traceEvents": [*names, *events(ranks)], "displayTimeUnit": "ns"}))


def events(ranks: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """A slice for each phase that a block has noted; a phase that a block did not come to has no slice."""
    starts = [_earliest(buffers.values()) for buffers in ranks]
    known = [start for start in starts if start]
    together = bool(known) and max(known) - min(known) < _TOGETHER_NS
    for rank, buffers in enumerate(ranks):
        origin = min(known) if together else starts[rank]
        for op, buffer in buffers.items():
            for block in np.flatnonzero(buffer[:, 0] > 0).tolist():
                yield from _block(op, rank, block, buffer[block].tolist(), origin)


def _earliest(buffers: Iterable[Any]) -> int:
    """The first start of any block, 0 if there is none."""
    found = [int(b[:, 0][b[:, 0] > 0].min()) for b in buffers if (b[:, 0] > 0).any()]
    return min(found, default=0)


def _block(op: str, rank: int, block: int, words: Sequence[int], origin: int) -> Iterator[dict[str, Any]]:
    before = words[0]
    for name, at in zip(PHASES[op][1:], words[1:], strict=False):
        if not name or at < before:
            continue
        yield {
            "ph": "X", "name": name, "cat": op, "pid": rank, "tid": block,
            "ts": (before - origin) / 1e3, "dur": (at - before) / 1e3,
        }  # fmt: skip
        before = at
