# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The command line: bad arguments are refused by name, failures have exit codes, help has units."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from mori.bench import run_ep
from mori.cli import app
from typer.testing import CliRunner

from mori import doctor

from . import fake

pytestmark = pytest.mark.timeout(60)
runner = CliRunner()

BAD = [
    (["--ranks", "0"], "ranks"),
    (["--ranks", "65"], "ranks"),
    (["--ranks", "two"], "ranks"),
    (["--device", "tpu"], "device"),
    (["--tokens", "0"], "tokens"),
    (["--tokens", "-3"], "tokens"),
    (["--hidden", "0"], "hidden"),
    (["--hidden", "7"], "hidden"),
    (["--hidden", "7160", "--dtype", "fp4"], "hidden"),
    (["--hidden", "33", "--dtype", "fp4"], "hidden"),
    (["--topk", "0"], "topk"),
    (["--topk", "33"], "topk"),
    (["--topk", "9"], "topk"),
    (["--topk", "8", "--experts", "4", "--ranks", "2", "--routing", "zipf"], "topk"),
    (["--experts", "0"], "experts"),
    (["--experts", "7"], "experts"),
    (["--experts", "128"], "experts"),
    (["--dtype", "int8"], "dtype"),
    (["--layout", "token"], "layout"),
    (["--align", "0"], "align"),
    (["--align", "8"], "align"),
    (["--quantize", "int8"], "quantize"),
    (["--quantize", "fp8", "--dtype", "fp8"], "quantize"),
    (["--quantize", "fp8", "--hidden", "160"], "hidden"),
    (["--blocks", "-1"], "blocks"),
    (["--flush"], "flush"),
    (["--peers", "deepep_v1"], "peers"),
    (["--trace", "/no/such/folder/x.json"], "trace"),
    (["--routing", "lukewarm"], "routing"),
    (["--routing", __file__], "routing"),
    (["--iters", "0"], "iters"),
    (["--warmup", "-1"], "warmup"),
    (["--graph"], "graph"),
    (["--peers", "ucx"], "peers"),
    (["--peers", "nccl"], "peers"),
    (["--timeout", "0"], "timeout"),
    (["--timeout", "nan"], "timeout"),
    (["--json", "/no/such/folder/x.json"], "json"),
    (["--plot", "/no/such/folder/x.png"], "plot"),
    (["--colour", "red"], "colour"),
]


@pytest.mark.parametrize(
    ("arguments", "name"), BAD, ids=lambda value: "_".join(value)[-40:] if isinstance(value, list) else ""
)
def test_bad_arguments_are_refused_by_name(arguments, name):
    result = runner.invoke(app, ["bench", "ep", *arguments])
    assert result.exit_code == 2
    assert name in result.output


def small(*more: str) -> list[str]:
    shape = "--ranks 2 --tokens 4 --hidden 32 --topk 2 --experts 4 --routing uniform --iters 2"
    return ["bench", "ep", *shape.split(), *more]


@pytest.fixture
def fault(monkeypatch):
    """Runs the bench over the stand-in, in threads, with what the test puts in here spoiling its results."""
    pytest.importorskip("torch")
    holder = {"fault": None}

    def run(settings, *, pulse=""):
        return run_ep(settings, pulse=pulse, opener=fake.opener(holder["fault"]), mode="thread")

    monkeypatch.setattr("mori.bench.run_ep", run)
    return holder


def test_a_good_run_prints_a_table_and_writes_files(fault, tmp_path):
    result = runner.invoke(app, small("--json", str(tmp_path / "r.json")))
    assert result.exit_code == 0, result.output
    for word in ("dispatch", "combine", "round trip", "median", "ratio", "limit", "verified bit for bit"):
        assert word in result.output
    assert json.loads((tmp_path / "r.json").read_text())["bench"] == "ep"


def test_a_wrong_result_exits_1_and_is_named(fault):
    def spoil(op, rank, result):
        if op == "dispatch" and rank == 1:
            result.topk_weights[0] += 1

    fault["fault"] = spoil
    result = runner.invoke(app, small())
    assert result.exit_code == 1
    assert "wrong result: dispatch on rank 1: topk_weights[0, " in result.output
    assert "Traceback" not in result.output


def test_a_failing_rank_exits_1_with_its_traceback_only(fault):
    def spoil(op, rank, result):
        if rank == 1:
            raise RuntimeError("out of ink")

    fault["fault"] = spoil
    result = runner.invoke(app, small())
    assert result.exit_code == 1
    assert "rank 1 of 2 failed" in result.output
    assert "RuntimeError: out of ink" in result.output
    assert "rank 0 of 2 failed" not in result.output


def test_help_gives_units_and_defaults():
    text = runner.invoke(app, ["bench", "ep", "--help"], env={"COLUMNS": "200"}).output
    for words in ("Tokens per rank", "default: 256", "Seconds that the whole run may take", "default: 7168"):
        assert words in text


@pytest.mark.parametrize("arguments", [["--help"], ["env", "--json"], ["bench", "ep", "--ranks", "0"]], ids=" ".join)
def test_quick_commands_import_no_torch(arguments):
    code = f"import sys; from mori.cli import app; app({arguments!r}, standalone_mode=False)"
    script = f"import sys, atexit; atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr)); {code}"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30)
    assert done.stderr.strip().endswith("False"), done.stderr


def test_doctor_answers_in_json():
    result = runner.invoke(app, ["doctor", "--json"])
    assert result.exit_code == 0
    report = json.loads(result.output)
    assert set(report["targets"]) == {"cpu", "cuda", "hip"}
    assert all(isinstance(built, bool) for built in report["targets"].values())
    assert {"kernels", "versions", "drivers", "gpus", "nics", "posting", "limits", "missing", "errors"} <= set(report)


QUESTIONS = (
    "_kernels",
    "_manifest",
    "_versions",
    "_drivers",
    "_gpus",
    "_nics",
    "_posting",
    "_limits",
    "_environment",
    "_missing",
)


@pytest.mark.parametrize("question", QUESTIONS)
def test_doctor_never_raises(question, monkeypatch):
    def broken(*_):
        raise OSError("a disk fell over")

    monkeypatch.setattr(doctor, question, broken)
    result = runner.invoke(app, ["doctor"])
    assert result.exit_code == 0
    assert "a disk fell over" in result.output


def test_doctor_reads_the_kernel_folder(tmp_path, monkeypatch):
    for name in ("cpu_w1.so", "ep.fatbin", "manifest.json"):
        (tmp_path / name).write_text("{}")
    monkeypatch.setenv("MORI_KERNEL_DIR", str(tmp_path))
    report = doctor.examine()
    assert report["targets"] == {"cpu": True, "cuda": True, "hip": False}
    assert [m["get"] for m in report["missing"] if "hip" in m["what"]] == [doctor._REMEDIES["hip"]]


@pytest.mark.parametrize("text", ["", "[]", '{"targets": 3}', '{"targets": {"cuda": 1}}'], ids=repr)
def test_doctor_survives_a_broken_manifest(text, tmp_path, monkeypatch):
    (tmp_path / "manifest.json").write_text(text)
    (tmp_path / "cpu_w1.so").write_text("")
    monkeypatch.setenv("MORI_KERNEL_DIR", str(tmp_path))
    result = runner.invoke(app, ["doctor"])
    assert result.exit_code == 0
    assert "built (1 files)" in result.output
    assert "built: " in result.output


def test_doctor_repeats_why_a_target_was_not_built(tmp_path, monkeypatch):
    why = {"missing": "no nvcc found", "remedy": "buy one"}
    (tmp_path / "manifest.json").write_text(json.dumps({"targets": {"cuda": why}}))
    monkeypatch.setenv("MORI_KERNEL_DIR", str(tmp_path))
    found = [m for m in doctor.examine()["missing"] if "cuda" in m["what"]]
    assert found == [{"what": "cuda kernels (no nvcc found)", "needed_for": "NVIDIA GPUs", "get": "buy one"}]


def test_doctor_tells_a_bad_variable(monkeypatch):
    monkeypatch.setenv("MORI_TIMEOUT_S", "soon")
    assert "MORI_TIMEOUT_S" in doctor.examine()["errors"]["environment"]
