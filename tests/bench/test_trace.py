# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Times of blocks become slices: in order, of the right length, on one time axis where clocks agree."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from mori.bench import trace

pytestmark = pytest.mark.timeout(30)

BASE = 5_000_000_000


def buffer(*blocks: list[int]) -> np.ndarray:
    out = np.zeros((4, 8), dtype=np.int64)
    for index, times in enumerate(blocks):
        out[index, : len(times)] = [BASE + t if t >= 0 else 0 for t in times]
    return out


def slices(ranks: list[dict[str, np.ndarray]]) -> list[tuple]:
    return [(e["pid"], e["tid"], e["cat"], e["name"], e["ts"], e["dur"]) for e in trace.events(ranks)]


def test_a_block_s_phases_follow_each_other():
    found = slices([{"dispatch": buffer([1000, 1500, 3000, 9000, 9100, 12000, 12500])}])
    assert [s[3] for s in found] == [name for name in trace.PHASES["dispatch"] if name]
    assert found[0][4:] == (0.0, 0.5) and found[1][4:] == (0.5, 1.5)
    assert sum(s[5] for s in found) == pytest.approx(11.5)


def test_phases_that_a_block_did_not_come_to_are_left_out():
    found = slices([{"combine": buffer([1000, -1, -1, 4000], [2000])}])
    assert [(s[1], s[3], s[5]) for s in found] == [(0, "return rows", 3.0)]


def test_ranks_share_an_axis_where_their_clocks_agree():
    near = slices([{"dispatch": buffer([0, 10])}, {"dispatch": buffer([2000, 2010])}])
    assert [(s[0], s[4]) for s in near] == [(0, 0.0), (1, 2.0)]
    far = slices([{"dispatch": buffer([0, 10])}, {"dispatch": buffer([10**9, 10**9 + 10])}])
    assert [(s[0], s[4]) for s in far] == [(0, 0.0), (1, 0.0)]


def test_nothing_traced_is_an_empty_trace(tmp_path: Path):
    file = tmp_path / "t.json"
    trace.write(file, [{"dispatch": buffer()}, {}])
    events = json.loads(file.read_text())["traceEvents"]
    assert {e["ph"] for e in events} == {"M"} and len(events) == 2
