# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Each variable has a type, a default and a sentence; bad values are named; nobody else reads any."""

import dataclasses
import io
import json
import re
from pathlib import Path

import pytest
from mori.errors import ConfigError

from mori import config

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("MORI_TIMEOUT_S", "2.5", "timeout_s", 2.5),
        ("MORI_TIMEOUT_S", "0", "timeout_s", 0.0),
        ("MORI_HEAP_BYTES", "4096", "heap_bytes", 4096),
        ("MORI_HEAP_BYTES", "2G", "heap_bytes", 2 << 30),
        ("MORI_HEAP_BYTES", "64MiB", "heap_bytes", 64 << 20),
        ("MORI_HEAP_BYTES", "3kb", "heap_bytes", 3 << 10),
        ("MORI_DEBUG", "on", "debug", True),
        ("MORI_DEBUG", "0", "debug", False),
        ("MORI_LOG", "DEBUG", "log", "debug"),
        ("MORI_CPU_THREADS", "3", "cpu_threads", 3),
        ("MORI_CPU_LANES", "64", "cpu_lanes", 64),
        ("MORI_SMS", "24", "sms", 24),
        ("MORI_KERNEL_DIR", "/k", "kernel_dir", "/k"),
        ("MORI_KERNEL_CACHE", "/c", "kernel_cache", "/c"),
        ("MORI_BOOTSTRAP_HOST", "10.0.0.1", "bootstrap_host", "10.0.0.1"),
    ],
)
def test_good_values(name: str, text: str, field: str, value: object) -> None:
    assert getattr(config.load({name: text}), field) == value


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("MORI_TIMEOUT_S", "soon"),
        ("MORI_TIMEOUT_S", "-1"),
        ("MORI_TIMEOUT_S", "nan"),
        ("MORI_HEAP_BYTES", "0"),
        ("MORI_HEAP_BYTES", "-5"),
        ("MORI_HEAP_BYTES", "5X"),
        ("MORI_HEAP_BYTES", "G"),
        ("MORI_DEBUG", "perhaps"),
        ("MORI_LOG", "loud"),
        ("MORI_CPU_THREADS", "-1"),
        ("MORI_CPU_THREADS", "1.5"),
        ("MORI_CPU_LANES", "16"),
        ("MORI_SMS", "all"),
    ],
)
def test_bad_values_are_named(name: str, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.load({name: text})
    assert name in str(caught.value)
    assert repr(text) in str(caught.value)


def test_unset_and_empty_mean_the_default() -> None:
    assert config.load({}) == config.load({"MORI_TIMEOUT_S": "", "HOME": "/"}) == config.Config()


def test_a_snapshot_is_taken_at_each_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORI_SMS", "7")
    before = config.load()
    monkeypatch.setenv("MORI_SMS", "8")
    assert (before.sms, config.load().sms) == (7, 8)


def test_a_snapshot_cannot_be_written() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.load({}).sms = 3  # type: ignore[misc]


def test_there_are_fewer_than_twenty_and_each_is_explained() -> None:
    rows = config.variables()
    assert 0 < len(rows) < 20
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        assert row.name.startswith("MORI_")
        assert row.form
        assert row.sentence.endswith(".")
        assert getattr(config.Config(), row.field) == row.default


def test_misspellings_are_found() -> None:
    assert config.unknown({"MORI_TIMEOUT": "1", "MORI_SMS": "1", "PATH": ""}) == ("MORI_TIMEOUT",)


@pytest.mark.parametrize("variable", ["RANK", "WORLD_SIZE"])
def test_a_launcher_is_noticed(variable: str) -> None:
    assert config.launched({variable: "0"})
    assert not config.launched({"MASTER_ADDR": "x"})


def test_printed_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORI_SMS", "24")
    monkeypatch.setenv("MORI_SSM", "24")
    out = io.StringIO()
    config.print_env(file=out)
    assert "MORI_TIMEOUT_S" in out.getvalue()
    assert "MORI_SSM" in out.getvalue()


def test_printed_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORI_SMS", "24")
    out = io.StringIO()
    config.print_env(as_json=True, file=out)
    rows = {row["name"]: row for row in json.loads(out.getvalue())["variables"]}
    assert rows["MORI_SMS"]["value"] == 24
    assert rows["MORI_SMS"]["set"]
    assert not rows["MORI_DEBUG"]["set"]


def test_docs_have_the_table() -> None:
    assert config.markdown() in (ROOT / "docs" / "cluster.md").read_text()


def test_nobody_else_reads_the_environment() -> None:
    reads = re.compile(r"\bos\.environ|\benvironb?\b|getenv")
    sources = [p for top in ("python", "src", "mori") for p in (ROOT / top).rglob("*") if p.is_file()]
    sources = [p for p in sources if p.suffix in {".py", ".cpp", ".hpp", ".cu", ".h"}]
    assert len(sources) > 5
    guilty = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sources
        if path != ROOT / "python" / "mori" / "config.py"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if reads.search(line)
    ]
    assert guilty == []
