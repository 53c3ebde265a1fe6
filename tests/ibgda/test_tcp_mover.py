# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The software NIC over TCP, by itself: requests as a model does them, requests that the target refuses, connections
that are turned away, peers that are silent, gone or lie. docs/host_proxy.md.

The long form, with more requests and under ThreadSanitizer: `pytest -m long tests/ibgda/test_tcp_mover.py`.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from sanitize.sanitized import Sanitized, compiler

ROOT = Path(__file__).parents[2]
SOURCES = [*sorted(ROOT.glob("src/transport/ibgda/softnic/*.cpp")), *sorted(ROOT.glob("src/transport/ibgda/tcp/*.cpp"))]
FAMILIES = ("mlx5", "bnxt_re", "ionic")
CASES = [
    *(("mixed", family, 300) for family in FAMILIES),
    *(("refused", family, 0) for family in FAMILIES),
    ("strangers", "mlx5", 0),
    ("peers", "mlx5", 0),
    ("guests", "mlx5", 20),
]


def build(sanitizer: str, factory: pytest.TempPathFactory) -> Path:
    if compiler() is None:
        pytest.skip("no g++ to build the program with")
    folder = factory.getbasetemp() / "softnic"  # objects that test_softnic.py makes too
    return Sanitized(sanitizer, folder).program(Path(__file__).with_name("tcp_main.cpp"), SOURCES, device=False)


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("address", tmp_path_factory)


@pytest.fixture(scope="session")
def threaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("thread", tmp_path_factory)


def run(program: Path, what: str, family: str, number: int) -> None:
    command = [program, what, family, str(number)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.parametrize(("what", "family", "number"), CASES)
def test_over_tcp(program: Path, what: str, family: str, number: int) -> None:
    run(program, what, family, number)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("what", "family", "number"), [(w, f, 20 * n) for w, f, n in CASES])
def test_long(program: Path, what: str, family: str, number: int) -> None:
    run(program, what, family, number)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("what", "family", "number"), CASES)
def test_without_races(threaded: Path, what: str, family: str, number: int) -> None:
    run(threaded, what, family, number)
