# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Times and bytes: the slowest rank, the percentiles, and byte counts against counting one row at a time."""

from __future__ import annotations

import numpy as np
import pytest
from mori.bench.limit import landing_bytes, parts
from mori.bench.peers import split_sizes
from mori.bench.report import build_row
from mori.bench.settings import FORMATS, EpSettings
from mori.bench.statistics import Spans, Summary, Traffic, gbps, slowest_us, summarise, traffic
from mori.bench.verify import packed
from mori.bench.workload import make

pytestmark = pytest.mark.timeout(60)


def test_iteration_lasts_from_first_start_to_last_end_on_a_shared_clock():
    ranks = [Spans([1000, 9000], [3000, 9500]), Spans([2000, 8000], [7000, 9100])]
    assert slowest_us(ranks).tolist() == [6.0, 1.5]


def test_iteration_is_the_longest_rank_without_a_shared_clock():
    ranks = [Spans([0, 0], [3000, 500], shared_clock=False), Spans([0, 0], [1000, 1100], shared_clock=False)]
    assert slowest_us(ranks).tolist() == [3.0, 1.1]


def test_percentiles():
    summary = summarise(np.arange(1.0, 12.0))
    assert (summary.p10_us, summary.median_us, summary.p90_us) == (2.0, 6.0, 10.0)


@pytest.mark.parametrize(
    ("byte_count", "us", "expected"), [(1e9, 1e6, 1.0), (5_000, 1.0, 5.0), (0, 1.0, 0.0), (1, 0.0, 0.0)]
)
def test_gbps(byte_count, us, expected):
    assert gbps(byte_count, us) == pytest.approx(expected)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_bytes_equal_a_brute_force_count(ranks, dtype):
    settings = EpSettings(ranks=ranks, tokens=19, hidden=256, topk=4, experts=11, routing="zipf", dtype=dtype)
    workload = make(settings)
    widths = {"bf16": 512, "fp16": 512, "fp32": 1024, "fp8": 256 + 2 * 4, "fp4": 128 + 8 * 1}
    received = left = 0
    for source in range(ranks):
        for token in range(19):
            for rank in {int(workload.owner[e]) for e in workload.ids[source, token]}:
                received += widths[dtype]
                left += widths[dtype] if rank != source else 0
    counted = traffic(workload.rows(), settings.format.row_bytes(settings.hidden))
    assert counted == Traffic(pytest.approx(received / ranks), pytest.approx(left / ranks))


@pytest.mark.parametrize("dtype", ["bf16", "fp8", "fp4"])
@pytest.mark.parametrize("returning", [False, True], ids=["dispatch", "combine"])
def test_packed_rows_fit_together_across_ranks(dtype, returning):
    settings = EpSettings(ranks=3, tokens=9, hidden=64, topk=2, experts=6, routing="uniform", dtype=dtype)
    workload = make(settings)
    sent = [packed(settings, workload, rank, returning=returning) for rank in range(3)]
    sizes = [split_sizes(settings, workload, rank, returning=returning) for rank in range(3)]
    for rank in range(3):
        pieces = []
        for peer in range(3):
            out = sizes[peer][0]
            pieces.append(sent[peer][0][sum(out[:rank]) : sum(out[: rank + 1])])
            assert len(pieces[-1]) == sizes[rank][1][peer]
        assert np.array_equal(np.concatenate(pieces), sent[rank][1])


@pytest.mark.parametrize("consecutive", [False, True])
def test_the_copy_moves_the_wire_bytes_and_no_byte_lands_on_another(consecutive):
    sent = np.random.default_rng(0).integers(0, 50, (5, 5))
    landed = [np.zeros(landing_bytes(sent), dtype=int) for _ in range(5)]
    for rank in range(5):
        moved = 0
        for peer, start, before, count in parts(rank, sent, consecutive=consecutive):
            assert peer != rank
            assert start == (moved if consecutive else 0)
            landed[peer][before : before + count] += 1
            moved += count
        assert moved == sent[rank].sum() - sent[rank, rank]
    assert max(place.max() for place in landed) == 1
    assert [place.sum() for place in landed] == (sent.sum(axis=0) - np.diagonal(sent)).tolist()


def test_a_row_has_no_ratio_where_nothing_left_the_rank():
    fields = {
        "impl": "mori",
        "op": "dispatch",
        "dtype": "bf16",
        "ranks": 1,
        "tokens": 1,
        "hidden": 8,
        "verified": True,
    }
    row = build_row(Summary(1.0, 1.0, 1.0), Traffic(16, 0), 5.0, **fields)
    assert row.limit_gbps is None
    assert row.ratio is None
