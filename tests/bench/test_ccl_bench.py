# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""`mori bench ccl`: refusals by name, nccl-tests' figures, verification that notices, and a real run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from mori.bench import CclSettings, ccl_data
from mori.bench.ccl_rank import LIMIT, CclResult
from mori.bench.ccl_run import assemble
from mori.bench.ccl_settings import OPS, CclCase
from mori.bench.statistics import Spans
from mori.bench.verify import Mismatch
from mori.cli import app
from typer.testing import CliRunner

pytestmark = pytest.mark.timeout(120)
runner = CliRunner()

BAD = [
    (["--op", "teleport"], "op"),
    (["--algo", "ring"], "algo"),
    (["--sizes", "4Q"], "sizes"),
    (["--sizes", "12"], "sizes"),
    (["--dtype", "fp4"], "dtype"),
    (["--device", "cuda"], "device"),
    (["--peers", "smoke"], "peers"),
    (["--peers", "mpi", "--dtype", "bf16"], "bf16"),
    (["--ranks", "1"], "ranks"),
    (["--iters", "1"], "iters"),
    (["--timeout", "0"], "timeout"),
    (["--json", "/no/such/folder/x.json"], "json"),
]


@pytest.mark.parametrize(("arguments", "name"), BAD, ids=lambda v: "_".join(v)[-40:] if isinstance(v, list) else "")
def test_bad_arguments_are_refused_by_name(arguments: list[str], name: str) -> None:
    result = runner.invoke(app, ["bench", "ccl", *arguments])
    assert result.exit_code == 2, result.output
    assert name in result.output


@pytest.mark.parametrize("op", OPS)
def test_a_wrong_element_is_noticed(op: str) -> None:
    case = CclCase(op, 4 * 12)
    want = ccl_data.wanted(case, 3, 0, 12, 1)
    ccl_data.check("some", case, 0, want.copy(), want)
    wrong = want.copy()
    wrong[-1] += 1
    with pytest.raises(Mismatch, match=rf"1 of {len(want)} elements are wrong; element {len(want) - 1} is"):
        ccl_data.check("some", case, 0, wrong, want)


def test_what_must_come_out() -> None:
    rows = [ccl_data.source(CclCase("all_reduce", 48), 3, r, 12, 1) for r in range(3)]
    assert len({tuple(row) for row in rows}) == 3
    assert (ccl_data.wanted(CclCase("all_reduce", 48), 3, 1, 12, 1) == np.sum(rows, 0)).all()
    assert (ccl_data.wanted(CclCase("reduce_scatter", 48), 3, 1, 12, 1) == np.sum(rows, 0)[4:8]).all()
    assert ccl_data.wanted(CclCase("reduce", 48), 3, 1, 12, 1) is None


def test_figures_are_those_of_nccl_tests() -> None:
    settings = CclSettings(ranks=4, ops=("all_reduce", "all_gather", "broadcast"), sizes=(1 << 20,))
    us = [1000, 2000, 3000, 2000]
    spans = [Spans([0] * 4, [1000 * t + r for t in us], shared_clock=False) for r in range(4)]
    results = [
        CclResult({(name, case, "single"): spans[r] for name in ("mori", LIMIT) for case in range(3)}) for r in range(4)
    ]
    rows = assemble(settings, results, [], notes=[]).rows
    assert [row.op for row in rows] == ["all_reduce", "all_gather", "broadcast"]
    for row, factor in zip(rows, (1.5, 0.75, 1.0), strict=True):
        assert row.median_us == pytest.approx(2000, abs=0.01)
        assert row.algo_gbps == pytest.approx((1 << 20) / 2e6, rel=1e-3)
        assert row.wire_gbps == pytest.approx(factor * (1 << 20) / 2e6, rel=1e-3)


def test_a_run_measures_every_operation(tmp_path: Path) -> None:
    file, picture = tmp_path / "ccl.json", tmp_path / "ccl.png"
    arguments = ["--ranks", "3", "--sizes", "12K,768K", "--iters", "4", "--op", ",".join(OPS), "--peers", "gloo,mpi"]
    arguments += ["--algo", "one_shot,two_shot,ll", "--json", str(file), "--plot", str(picture)]
    result = runner.invoke(app, ["bench", "ccl", *arguments])
    assert result.exit_code == 0, result.output
    report = json.loads(file.read_text())
    ours = {(row["op"], row["bytes"], row.get("layout")) for row in report["rows"] if row["impl"] == "mori"}
    sizes = (12 << 10, 768 << 10)
    assert ours == {(op, size, None) for op in OPS if op != "all_reduce" for size in sizes} | {
        ("all_reduce", size, algorithm)
        for size in sizes
        for algorithm in ("one_shot", "two_shot", "ll")
        if algorithm != "ll" or size < 1 << 16
    }
    assert {row["impl"] for row in report["rows"]} >= {"mori", "gloo"}
    assert all(row["verified"] and row["median_us"] > 0 and row["limit_us"] > 0 for row in report["rows"])
    assert picture.stat().st_size > 10_000
