# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""`mori bench shmem`: refusals by name, what is measured, verification that notices, and real runs of two ranks."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from mori.bench import ShmemSettings, nvshmem_peer, run_shmem, shmem_rank
from mori.bench.shmem_kernels import SOURCES
from mori.bench.shmem_rank import LIMIT, ShmemResult, wire_bytes
from mori.bench.shmem_run import assemble
from mori.bench.shmem_settings import OPS, QUEUE_OPS, ShmemCase
from mori.bench.verify import Mismatch
from mori.cli import app
from mori.errors import ConfigError
from mori.testing import RankError, run_ranks
from typer.testing import CliRunner

pytestmark = pytest.mark.timeout(120)
runner = CliRunner()

BAD = [
    (["--op", "teleport"], "op"),
    (["--scope", "grid"], "scope"),
    (["--blocks", "0"], "blocks"),
    (["--blocks", "many"], "blocks"),
    (["--sizes", "4Q"], "sizes"),
    (["--sizes", "12"], "sizes"),
    (["--sizes", "2G"], "sizes"),
    (["--transport", "pigeon"], "transport"),
    (["--transport", "ibgda", "--device", "cuda"], "transport=ibgda with device=cuda"),
    (["--op", "put_rate"], "op"),
    (["--peers", "nvshmem"], "device=cuda"),
    (["--peers", "smoke"], "peers"),
    (["--ranks", "1"], "ranks"),
    (["--iters", "1"], "iters"),
    (["--timeout", "0"], "timeout"),
    (["--json", "/no/such/folder/x.json"], "json"),
]


@pytest.mark.parametrize(("arguments", "name"), BAD, ids=lambda v: "_".join(v)[-40:] if isinstance(v, list) else "")
def test_bad_arguments_are_refused_by_name(arguments, name):
    result = runner.invoke(app, ["bench", "shmem", *arguments])
    assert result.exit_code == 2, result.output
    assert name in result.output


def test_cases_are_of_every_operation_and_scope():
    cases = ShmemSettings(device="cuda").cases()
    assert {case.op for case in cases} == {*OPS, "put_signal_paired", "atomic_add", "atomic_fetch_add"} - {"atomic"}
    puts = [case for case in cases if case.op == "put"]
    assert {case.scope for case in puts} == {"thread", "warp", "block"}
    assert {case.blocks for case in puts if case.bytes == 8 << 20} == {1, 4, 16, 32}
    assert {case.blocks for case in puts if case.bytes == 8} == {1}
    assert all(case.warps == 1 for case in ShmemSettings().cases())


@pytest.mark.parametrize(
    ("op", "ranks", "expected"),
    [("put", 4, 800), ("broadcast", 4, 2400), ("fcollect", 2, 800), ("alltoall", 3, 1600), ("reduce", 4, 1200)],
)
def test_wire_bytes(op, ranks, expected):
    assert wire_bytes(ShmemCase(op, OPS[op], 800), ranks) == expected


def test_a_row_is_of_the_slowest_rank_and_says_its_limit():
    settings = ShmemSettings(ops=("reduce",), sizes=(800,))
    slow, fast = np.full(5, 4000.0), np.full(5, 1000.0)
    results = [
        ShmemResult({("mori", 0): slow, (LIMIT, 0): fast}, "cpu"),
        ShmemResult({("mori", 0): fast, (LIMIT, 0): 2 * fast}, "cpu"),
    ]
    [row] = assemble(settings, results, {}, mode="processes", gpus=0, notes=[]).rows
    assert (row.median_us, row.limit_us, row.ratio, row.wire_bytes, row.wire_gbps) == (4.0, 2.0, 0.5, 800, 0.2)


def test_a_run_measures_all_operations(tmp_path):
    file = tmp_path / "out.json"
    arguments = ["--sizes", "8,4K", "--iters", "4", "--scope", "warp", "--json", str(file)]
    result = runner.invoke(app, ["bench", "shmem", *arguments])
    assert result.exit_code == 0, result.output
    report = json.loads(file.read_text())
    assert report["bench"] == "shmem"
    assert {row["op"] for row in report["rows"]} == {case.op for case in ShmemSettings().cases()}
    for row in report["rows"]:
        assert row["verified"] and 0 < row["median_us"] <= row["p90_us"] and row["ratio"] > 0, row
    put = next(row for row in report["rows"] if row["op"] == "put" and row["bytes"] == 4096)
    assert put["wire_gbps"] == pytest.approx(4096 / put["median_us"] / 1e3, rel=0.01)
    assert "put signal" in result.output


def test_a_run_over_queues(monkeypatch):
    monkeypatch.setenv("MORI_IBGDA_PROVIDER", "ionic")
    ops = ("put", "atomic", "barrier", "put_quiet", "put_rate")
    report = run_shmem(ShmemSettings(transport="ibgda", ops=ops, sizes=(8,), iters=4))
    rates = [row for row in report.rows if row.op == "put_rate"]
    assert [row.scope for row in rates] == ["1 queue", "8 queues"]
    assert all(row.backend == "ibgda" and row.verified and row.median_us > 0 and row.limit_us for row in report.rows)
    assert {row.op for row in report.rows} >= {"put", "atomic_add", "barrier", "put_quiet"}
    assert all(row.million_per_s for row in rates) and "ionic" in report.meta.notes[0]


def test_three_ranks_meet():
    report = run_shmem(ShmemSettings(ranks=3, ops=("barrier", "reduce", "alltoall"), sizes=(1000,), iters=4))
    assert [row.op for row in report.rows] == ["barrier", "reduce", "alltoall"]


@pytest.mark.parametrize("op", ["put", "get", "put_signal", "atomic", "reduce", "put_quiet", "put_rate"])
def test_wrong_results_end_the_run(op, monkeypatch):
    """Each rank expects what only it knows; fork takes the change along."""
    rank = shmem_rank._Rank
    monkeypatch.setattr(rank, "_data", lambda self, nbytes, of, salt: np.full(nbytes, self.rank + 1, np.uint8))
    monkeypatch.setattr(rank, "_contribution", lambda self, case, of, salt: np.full(64, self.rank + 1, np.uint8))
    atomic = rank._atomic

    def count_wrongly(self, case):
        self.settings = dataclasses.replace(self.settings, iters=self.settings.iters + self.rank)
        return atomic(self, case)

    monkeypatch.setattr(rank, "_atomic", count_wrongly)
    transport = "ibgda" if op in QUEUE_OPS else "p2p"
    settings = ShmemSettings(ops=(op,), sizes=(64,), iters=4, transport=transport)
    with pytest.raises(RankError) as caught:
        run_ranks(shmem_rank.run_rank, 2, settings, 0, "", mode="fork", timeout=60)
    assert any("Mismatch" in text for text in caught.value.tracebacks.values()), caught.value


@pytest.mark.gpu
def test_on_a_gpu():
    if not pytest.importorskip("torch").cuda.is_available():
        pytest.skip("no CUDA GPU here")
    report = run_shmem(ShmemSettings(device="cuda", sizes=(8, 65536), blocks=(1, 4), iters=4))
    assert {row.op for row in report.rows} == {case.op for case in ShmemSettings().cases()}


def test_what_the_nvshmem_program_says_is_read():
    cases = ShmemSettings(device="cuda", ops=("p", "put_signal"), sizes=(8,), scopes=("block",)).cases()
    text = nvshmem_peer.lines(cases, 5)
    assert text.splitlines() == ["0 p thread 8 1 1 200 5", "2 put_signal block 8 1 8 200 5"]
    assert nvshmem_peer.parse("hello\n0 1.5 2.5\n2 3.0\n")[0].tolist() == [1.5, 2.5]
    with pytest.raises(Mismatch, match="put_signal"):
        nvshmem_peer.parse("0 1.0\nwrong 2 put_signal of 8 bytes at rank 1\n")


def test_the_nvshmem_program_is_built_for_one_architecture():
    folder = Path("/somewhere/nvshmem")
    with pytest.raises(ConfigError, match="libnvshmem_host"):
        nvshmem_peer.build_command("nvcc", folder, "90", Path("out"))
    assert (SOURCES / "nvshmem_peer.cu").is_file()
