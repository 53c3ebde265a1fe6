# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The software NIC by itself: each mistake is found and named, faults lose nothing, random bytes do no harm.

`softnic_main.cpp` posts with the families' own encoders and reads completions with their own decoders. The long form:
`pytest -m long tests/ibgda/test_softnic.py`.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from sanitize.sanitized import Sanitized, compiler

SOFTNIC = Path(__file__).parents[2] / "src/transport/ibgda/softnic"
FAMILIES = ("mlx5", "bnxt_re", "ionic")


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if compiler() is None:
        pytest.skip("no g++ to build the program with")
    main, folder = Path(__file__).with_name("softnic_main.cpp"), tmp_path_factory.getbasetemp() / "softnic"
    return Sanitized("address", folder).program(main, sorted(SOFTNIC.glob("*.cpp")), device=False)


def run(program: Path, what: str, family: str, number: int) -> None:
    command = [program, what, family, str(number)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.parametrize("family", FAMILIES)
def test_each_mistake_is_found_and_named(program: Path, family: str) -> None:
    run(program, "checks", family, 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_faults_lose_nothing_near_every_wrap(program: Path, family: str) -> None:
    run(program, "faults", family, 1000)


@pytest.mark.parametrize("family", FAMILIES)
def test_random_rings_do_no_harm(program: Path, family: str) -> None:
    run(program, "fuzz", family, 20_000)


@pytest.mark.parametrize("family", FAMILIES)
def test_stages_are_timed(program: Path, family: str) -> None:
    run(program, "stages", family, 1280)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("what", "number"), [("faults", 50_000), ("fuzz", 1_000_000)])
def test_long(program: Path, what: str, number: int, family: str) -> None:
    run(program, what, family, number)
