# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The bench from end to end over a stand-in for the library: it verifies, it counts, and it notices every
kind of wrong result."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest
from mori.bench import EpSettings, Report, run_ep
from mori.bench.report import table, write_json
from mori.bench.settings import FORMATS
from mori.bench.verify import Mismatch

from . import fake

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.timeout(60)

SMALL = {
    "ranks": 3,
    "tokens": 5,
    "hidden": 64,
    "topk": 4,
    "experts": 7,
    "routing": "zipf",
    "iters": 3,
    "warmup": 1,
}


def run(fault=None, **changes) -> Report:
    report = run_ep(EpSettings(**{**SMALL, **changes}), mode="thread", opener=fake.opener(fault))
    assert report is not None
    return report


@pytest.mark.parametrize("dtype", FORMATS)
def test_right_results_are_reported(dtype):
    report = run(dtype=dtype)
    assert [(row.op, row.window) for row in report.rows] == [
        ("dispatch", "single"),
        ("combine", "single"),
        ("round_trip", "single"),
        ("dispatch", "steady"),
        ("combine", "steady"),
    ]
    for row in report.rows:
        assert row.verified
        assert row.p10_us <= row.median_us <= row.p90_us
        assert row.ratio == pytest.approx(row.wire_gbps / row.limit_gbps, rel=1e-2)


@pytest.mark.parametrize("ranks", [1, 2, 5])
@pytest.mark.parametrize("routing", ["uniform", "hot", ""], ids=["uniform", "hot", "recorded"])
def test_ranks_and_routings(ranks, routing):
    shape = {"topk": 8, "experts": 256} if not routing else {}
    report = run(ranks=ranks, routing=routing, **shape)
    assert len(report.rows) == 5
    assert (report.rows[0].limit_gbps is None) == (ranks == 1)
    assert (report.rows[0].wire_bytes == 0) == (ranks == 1)


def payload_bit(op, rank, result):
    if op == "dispatch" and rank == 1:
        result.x.view(torch.uint8)[2, 7] ^= 1


def scale_bit(op, rank, result):
    if op == "dispatch" and rank == 1:
        result.scales[0, 0] ^= 1


def foreign_id(op, rank, result):
    if op == "dispatch" and rank == 0:
        result.topk_ids[0][result.topk_ids[0] < 0] = 3


def weight(op, rank, result):
    if op == "dispatch" and rank == 0:
        result.topk_weights[0] *= 1.5


def source(op, rank, result):
    if op == "dispatch" and rank == 0:
        result.src[0] = result.src[1]


def count(op, rank, result):
    if op == "dispatch" and rank == 0:
        result.counts[2] += 1


def last_bit_of_sum(op, rank, result):
    if op == "combine" and rank == 2:
        result.view(torch.uint8)[4, 6] ^= 1


FAULTS = {
    payload_bit: r"dispatch on rank 1: x\[2, 7\] \(token \d of rank \d\) is 0x..",
    scale_bit: r"dispatch on rank 1: scales\[0, 0\]",
    foreign_id: r"dispatch on rank 0: topk_ids\[0, \d\]",
    weight: r"dispatch on rank 0: topk_weights\[0, \d\]",
    source: r"dispatch on rank 0: token \d of rank \d (did not arrive|arrived more than once)",
    count: r"dispatch on rank 0: \d rows counted from rank 2, expected \d",
    last_bit_of_sum: r"combine on rank 2: y\[4, 3\] \(token 4 of rank 2\) is 0x....,",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_wrong_results_are_named(fault):
    started = time.monotonic()
    with pytest.raises(Mismatch, match=FAULTS[fault]):
        run(fault, dtype="fp8")
    assert time.monotonic() - started < 10


def test_only_the_last_iteration_wrong_is_noticed():
    calls = {}

    def late(op, rank, result):
        calls[rank] = calls.get(rank, 0) + (op == "combine")
        if op == "combine" and rank == 0 and calls[rank] == 1 + SMALL["warmup"] + SMALL["iters"]:
            result.view(torch.uint8)[0, 0] ^= 1

    with pytest.raises(Mismatch, match="combine on rank 0: y"):
        run(late)


@pytest.mark.parametrize("op", ["dispatch", "combine"])
def test_results_left_over_from_the_iteration_before_are_noticed(op):
    before, calls = {}, {}

    def stale(current, rank, result):
        if current != op:
            return
        values = (result.x if op == "dispatch" else result).view(torch.uint8)
        calls[rank] = calls.get(rank, 0) + 1
        if calls[rank] == 1 + SMALL["warmup"] + SMALL["iters"]:
            values.copy_(before[rank])
        before[rank] = values.clone()

    with pytest.raises(Mismatch, match="combine on rank"):
        run(stale)


def test_a_failing_rank_ends_the_run_with_its_traceback():
    from mori.testing import RankError

    def broken(op, rank, result):
        if rank == 1:
            raise RuntimeError("the roof is on fire")

    started = time.monotonic()
    with pytest.raises(RankError, match=r"rank 1 of 3 failed[\s\S]*the roof is on fire"):
        run(broken)
    assert time.monotonic() - started < 10


def test_json_follows_the_schema(tmp_path: Path):
    report = run()
    file = tmp_path / "report.json"
    write_json(report, file)
    again = msgspec.json.decode(file.read_bytes(), type=Report)
    assert again == report
    plain = msgspec.json.decode(file.read_bytes())
    assert plain["bench"] == "ep"
    assert {"commit", "date", "machine", "device", "ranks"} <= set(plain["meta"])
    needed = "impl op dtype ranks tokens hidden median_us p10_us p90_us algo_bytes wire_bytes algo_gbps wire_gbps"
    for row in plain["rows"]:
        assert set(needed.split()) | {"limit_gbps", "ratio", "verified", "layout", "window"} == set(row)
    assert sum(map(sum, plain["sent_bytes"])) == pytest.approx(3 * plain["rows"][0]["algo_bytes"], abs=3)


def test_table_and_plot(tmp_path: Path):
    report = run()
    assert table(report).row_count == 5
    pytest.importorskip("matplotlib")
    from mori.bench import plot

    plot.draw(report, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
