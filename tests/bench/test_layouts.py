# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The bench over the layouts by expert and over narrowing: verified, and every kind of wrong result is noticed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mori.bench import EpSettings, run_ep
from mori.bench.ep import open_mori
from mori.bench.verify import Mismatch

torch = pytest.importorskip("torch")
pytest.importorskip("mori._core", reason="needs the built extension")
pytestmark = pytest.mark.timeout(90)

SMALL = {"ranks": 3, "tokens": 7, "hidden": 256, "topk": 4, "experts": 10, "routing": "zipf", "iters": 2, "warmup": 1}


@pytest.mark.parametrize("quantize", ["", "fp8", "fp8_token_ue8m0", "fp4"])
@pytest.mark.parametrize("layout", ["rank", "expert", "grouped"])
def test_layouts_and_narrowing(layout, quantize):
    align = 1 if layout == "rank" else 4
    report = run_ep(EpSettings(**SMALL, layout=layout, align=align, quantize=quantize), mode="thread")
    assert len(report.rows) == 5
    assert all(row.verified and row.layout == layout for row in report.rows)
    assert report.rows[0].dtype == (f"bf16>{quantize}" if quantize else "bf16")
    widths = {"": 512, "fp8": 256 + 8, "fp8_token_ue8m0": 256 + 1, "fp4": 128 + 8}
    assert report.rows[0].algo_bytes % widths[quantize] == pytest.approx(0, abs=widths[quantize])


def test_scales_that_travel_lie_by_slot():
    report = run_ep(EpSettings(**SMALL, layout="grouped", dtype="fp8"), mode="thread")
    assert all(row.verified for row in report.rows)


def test_a_trace_is_written(tmp_path: Path):
    file = tmp_path / "trace.json"
    run_ep(EpSettings(**SMALL, trace=str(file)), mode="thread")
    events = json.loads(file.read_text())["traceEvents"]
    assert {(e["pid"], e["cat"]) for e in events if e["ph"] == "X"} == {
        (rank, op) for rank in range(3) for op in ("dispatch", "combine")
    }


def test_blocks_are_capped_and_told():
    report = run_ep(EpSettings(**SMALL, blocks=1), mode="thread")
    assert {row.sms for row in report.rows} == {1}


def slot_bit(recv):
    recv.by_expert()[0].view(torch.uint8)[0, 3] ^= 1


def rows_exchanged(recv):
    rows = max(recv.by_expert(), key=len)
    rows.copy_(rows.flip(0).clone())


def count(recv):
    recv.expert_counts[0] += 1


def route(recv):
    recv.routes[0] = recv.routes[1]


FAULTS = {
    slot_bit: "two slots of one row|x\\[",
    rows_exchanged: "dispatch on rank 1",
    count: "counts",
    route: "dispatch",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_wrong_slots_are_named(fault):
    def spoiled(rank, world_size, uid, settings, device):
        ctx, moe = open_mori(rank, world_size, uid, settings, device)
        dispatch = moe.dispatch

        def wrong(*args, **options):
            recv = dispatch(*args, **options)
            if rank == 1:
                fault(recv)
            return recv

        moe.dispatch = wrong
        return ctx, moe

    with pytest.raises(Mismatch, match=FAULTS[fault]):
        run_ep(EpSettings(**SMALL, layout="grouped", align=4), mode="thread", opener=spoiled)


def test_wrong_sums_are_named():
    def spoiled(rank, world_size, uid, settings, device):
        ctx, moe = open_mori(rank, world_size, uid, settings, device)
        combine = moe.combine

        def wrong(*args, **options):
            y = combine(*args, **options)
            y[3, 5] += 1
            return y

        moe.combine = wrong if rank == 2 else combine
        return ctx, moe

    with pytest.raises(Mismatch, match=r"combine on rank 2: y\[3, 5\]"):
        run_ep(EpSettings(**SMALL, layout="expert"), mode="thread", opener=spoiled)
