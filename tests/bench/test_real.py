# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The bench over the library itself: every dtype verified, all ways to start ranks, and a rank that dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from mori.bench import EpSettings, run_ep
from mori.bench.ep import open_mori
from mori.bench.settings import FORMATS

torch = pytest.importorskip("torch")
pytest.importorskip("mori._core", reason="needs the built extension")
pytestmark = pytest.mark.timeout(90)

SMALL = {"ranks": 3, "tokens": 7, "hidden": 256, "topk": 4, "experts": 10, "routing": "zipf", "iters": 3}
ARGUMENTS = [
    *("bench", "ep", "--tokens", "7", "--hidden", "256", "--topk", "4"),
    *("--experts", "10", "--routing", "zipf", "--iters", "3"),
]


@pytest.mark.parametrize("dtype", FORMATS)
def test_every_dtype_in_processes(dtype):
    report = run_ep(EpSettings(**SMALL, dtype=dtype))
    assert [row.op for row in report.rows] == ["dispatch", "combine", "round_trip", "dispatch", "combine"]
    assert all(row.verified and row.limit_gbps > 0 for row in report.rows)
    assert report.meta.mode == "processes"


@pytest.mark.parametrize("ranks", [1, 5])
def test_threads(ranks):
    report = run_ep(EpSettings(**{**SMALL, "ranks": ranks}), mode="thread")
    assert report.meta.mode == "threads"
    assert all(row.verified for row in report.rows)


def test_peers_in_the_same_run():
    report = run_ep(EpSettings(**SMALL, peers=("gloo",)))
    assert [row.impl for row in report.rows] == ["mori"] * 5 + ["gloo"] * 5
    mori, gloo = report.rows[0], report.rows[5]
    assert (mori.wire_bytes, mori.limit_gbps) == (gloo.wire_bytes, gloo.limit_gbps)


def test_joins_torchrun(tmp_path):
    file = tmp_path / "report.json"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [
        *torchrun,
        "-m",
        "mori.cli",
        *ARGUMENTS,
        "--ranks",
        "2",
        "--peers",
        "gloo",
        "--json",
        str(file),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=80)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("round trip") == 2  # printed by one rank
    assert json.loads(file.read_text())["meta"]["mode"] == "torchrun"


def dying(rank, world_size, uid, settings, device):
    ctx, moe = open_mori(rank, world_size, uid, settings, device)
    if rank == 1:
        moe.combine = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    return ctx, moe


def test_a_killed_rank_ends_the_run_at_once_and_is_named():
    from mori.testing import RankError

    started = time.monotonic()
    with pytest.raises(RankError, match="rank 1 of 3 failed") as caught:
        run_ep(EpSettings(**SMALL), opener=dying)
    assert "SIGKILL" in str(caught.value)
    assert "rank 0 of 3" not in str(caught.value)
    assert time.monotonic() - started < 30
