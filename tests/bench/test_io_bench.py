# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""`mori bench io`: refusals by name, the choice of blocks, a verifier that notices, and real runs of two processes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from mori.bench import IoSettings, run_io
from mori.bench import io_memory as memory
from mori.bench.io_contenders import touched
from mori.bench.io_settings import IoCase, parse_bytes
from mori.bench.verify import Mismatch
from mori.cli import app
from mori.errors import ConfigError
from typer.testing import CliRunner

pytestmark = pytest.mark.timeout(100)
runner = CliRunner()

BAD = [
    (["--backend", "smoke"], "backend"),
    (["--op", "copy"], "op"),
    (["--op", ","], "op"),
    (["--block-size", "4Q"], "block-size"),
    (["--block-size", "12"], "block-size"),
    (["--block-size", "0"], "block-size"),
    (["--block-size", "2G"], "block-size"),
    (["--batch", "0"], "batch"),
    (["--batch", "some"], "batch"),
    (["--batch", "2000000"], "batch"),
    (["--batch", "1000000", "--block-size", "1M"], "MiB"),
    (["--memory", "disk"], "memory"),
    (["--memory", "gpu", "--backend", "shm"], "memory"),
    (["--peers", "carrier-pigeon"], "peers"),
    (["--iters", "0"], "iters"),
    (["--warmup", "-1"], "warmup"),
    (["--timeout", "0"], "timeout"),
    (["--host", "x:1", "--backend", "shm"], "backend"),
    (["--json", "/no/such/folder/x.json"], "json"),
    (["--plot", "/no/such/folder/x.png"], "plot"),
    (["--trace", "/no/such/folder/x.json"], "trace"),
]


@pytest.mark.parametrize(("arguments", "name"), BAD, ids=lambda v: "_".join(v)[-40:] if isinstance(v, list) else "")
def test_bad_arguments_are_refused_by_name(arguments, name):
    result = runner.invoke(app, ["bench", "io", *arguments])
    assert result.exit_code == 2, result.output
    assert name in result.output


@pytest.mark.parametrize(("text", "value"), [("4096", 4096), ("64K", 65536), ("1m", 1 << 20), ("2MiB", 2 << 20)])
def test_sizes(text, value):
    assert parse_bytes(text) == value


@pytest.mark.parametrize("text", ["", "K", "-4", "4.5K", "4KK"])
def test_sizes_that_are_none(text):
    with pytest.raises(ConfigError, match="block-size"):
        parse_bytes(text)


@pytest.mark.parametrize("contiguous", [False, True], ids=["random", "contiguous"])
@pytest.mark.parametrize(("size", "batch"), [(8, 1), (4096, 3), (4096, 1000), (1 << 20, 100)])
def test_no_block_is_used_twice_in_a_turn(size, batch, contiguous):
    case = IoCase("write", size, batch, contiguous)
    turn = case.turn(3, 5)
    assert len(turn) == case.settles + case.samples
    for side in ("local", "remote"):
        offsets = np.concatenate([getattr(blocks, side) for blocks in turn])
        assert len(np.unique(offsets)) == len(offsets)
        assert offsets.max() + size <= case.pool_bytes and (offsets % size == 0).all()
    steps = np.diff(turn[0].local.astype(np.int64))
    assert (steps == size).all() if contiguous else batch < 10 or (steps == size).mean() < 0.1
    if case.pool_blocks > 100 * batch or (not contiguous and batch > 10):
        assert not np.array_equal(case.turn(3, 6)[0].local, turn[0].local)


CASES = [IoCase(op, size, batch, False) for op in ("write", "read") for size, batch in ((8, 5), (4096, 20), (12296, 7))]


def carried(case: IoCase):
    """A source and a landing with one right turn."""
    source, landing = touched(case.pool_bytes), touched(case.pool_bytes)
    memory.fill_source(source, case.pool_bytes, 1)
    memory.clear_landing(landing, case.pool_bytes)
    turn = case.turn(1, 2)
    for index, blocks in enumerate(turn):
        memory.stamp(source, case, blocks, 10 + index)
        for a, b in zip(blocks.source(case.op).tolist(), blocks.landing(case.op).tolist(), strict=True):
            landing.array[b : b + case.block_bytes] = source.array[a : a + case.block_bytes]
    return landing, turn


def look(case: IoCase, landing, turn, whole: bool = True) -> None:
    for index, blocks in enumerate(turn):
        memory.check(landing, case, blocks, 10 + index)
    if whole:
        memory.check_all(landing, case, turn, 10, 1, True)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.op}-{c.batch}x{c.block_bytes}")
def test_what_is_right_passes_and_any_wrong_byte_is_found(case):
    landing, turn = carried(case)
    look(case, landing, turn)
    place = int(turn[-1].landing(case.op)[-1]) + case.block_bytes // 2
    landing.array[place] ^= 1
    with pytest.raises(Mismatch, match=f"{case.op} of {case.batch} x {case.block_bytes} bytes: block"):
        look(case, landing, turn)


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.op}-{c.batch}x{c.block_bytes}")
def test_what_did_not_come_or_came_beside_is_found(case):
    landing, turn = carried(case)
    missing = int(turn[0].landing(case.op)[0])
    landing.array[missing : missing + case.block_bytes] = 0xEE
    with pytest.raises(Mismatch):
        look(case, landing, turn, whole=False)
    landing, turn = carried(case)
    hit = np.concatenate([blocks.landing(case.op) for blocks in turn])
    beside = np.setdiff1d(np.arange(0, case.pool_bytes, case.block_bytes, dtype=np.uint64), hit)
    if len(beside):
        landing.array[int(beside[0])] = 0
        with pytest.raises(Mismatch, match="which no transfer wrote to"):
            look(case, landing, turn)
    with pytest.raises(Mismatch):  # the transfer before this one
        memory.check(landing, case, turn[0], 9)


SMALL = {"block_bytes": (4096,), "batch": (1, 50), "iters": 2, "warmup": 1, "timeout_s": 60.0}


@pytest.mark.parametrize("backend", ["auto", "shm", "vm", "tcp"])
def test_real_runs(backend):
    report = run_io(IoSettings(backend=backend, **SMALL))
    assert [(row.op, row.batch) for row in report.rows] == [("write", 1), ("read", 1), ("write", 50), ("read", 50)]
    for row in report.rows:
        assert row.impl == "mori" and row.verified and row.limit_gbps > 0 and row.wire_bytes == row.batch * 4096
        assert row.p10_us <= row.median_us <= row.p90_us <= row.p99_us
    assert {row.backend for row in report.rows} <= {"shm", "tcp"}


def test_the_command_writes_a_table_a_report_and_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    small = ["--backend", "vm", "--block-size", "4K,8K", "--batch", "1,8", "--iters", "1", "--warmup", "0"]
    files = ["--json", str(tmp_path / "r.json"), "--plot", str(tmp_path / "r.png")]
    result = runner.invoke(app, ["bench", "io", *small, *files, "--peers", "fio"])
    assert result.exit_code == 0, result.output
    for word in ("write", "read", "8 x 4K", "ratio", "every result verified", "fio skipped"):
        assert word in result.output
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["bench"] == "io" and len(report["rows"]) == 8 and "tokens" not in report["rows"][0]
    assert (tmp_path / "r.png").stat().st_size > 10_000


def test_absent_peers_are_a_note(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "")
    report = run_io(IoSettings(backend="vm", **SMALL, ops=("write",), peers=("perftest",)))
    assert any("perftest skipped" in note for note in report.meta.notes)


def test_the_trace_has_every_transfer(tmp_path):
    small = ["--backend", "shm", "--block-size", "64", "--batch", "3", "--iters", "2", "--warmup", "0"]
    result = runner.invoke(app, ["bench", "io", *small, "--trace", str(tmp_path / "t.json")])
    assert result.exit_code == 0, result.output
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    case = IoCase("write", 64, 3, False)
    for op in ("write", "read"):
        begun = [event for event in events if event["ph"] == "b" and event["name"] == op]
        assert len(begun) == 2 * (case.samples + case.settles)
        assert {event["args"]["bytes"] for event in begun} == {192}
