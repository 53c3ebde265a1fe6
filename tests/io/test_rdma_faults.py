# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The rdma backend over a pretended libibverbs that breaks to order (fake_verbs.cpp): bytes, back-pressure, rails,
recovery, cancelling, loss, refusals, garbage; under ThreadSanitizer and AddressSanitizer. Each scenario is a function
of rdma_scenarios.cpp or rdma_endings.cpp."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from fixed_addresses import FIXED_ADDRESSES
from rdma_program import SCENARIOS as SOURCES
from rdma_program import compiler, fake_library, scenarios

pytestmark = [pytest.mark.timeout(500), pytest.mark.slow]
TEXT = "".join(Path(__file__).with_name(f"{name}.cpp").read_text() for name in SOURCES)
SCENARIOS = re.findall(r'^ {4,6}\{"([a-z-]+)", ', TEXT, re.M)
RACES_ON_PURPOSE = {"late-packets-would-be-seen"}  # a late packet and the memory's next user


@pytest.fixture(scope="module", params=["thread", "address"])
def program(request: pytest.FixtureRequest) -> tuple[str, Path]:
    if compiler() is None:
        pytest.skip("no g++ to build the scenarios with")
    return request.param, scenarios(request.param)


def run(sanitizer: str, program: Path, scenario: str) -> subprocess.CompletedProcess[str]:
    command = [str(program), str(fake_library(sanitizer)), scenario]
    return subprocess.run([*FIXED_ADDRESSES, *command], capture_output=True, text=True, timeout=100, check=False)


def test_all_scenarios_are_listed(program: tuple[str, Path]) -> None:
    done = subprocess.run([program[1]], capture_output=True, text=True, timeout=30, check=True)
    assert sorted(SCENARIOS) == done.stdout.split()


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario(program: tuple[str, Path], scenario: str) -> None:
    if program[0] == "thread" and scenario in RACES_ON_PURPOSE:
        pytest.skip("races on purpose")
    done = run(*program, scenario)
    assert done.returncode == 0 and "passed" in done.stdout, done.stdout + done.stderr


def test_a_failed_check_is_seen(program: tuple[str, Path]) -> None:
    assert run(*program, "no-such-scenario").returncode == 2
    missing = subprocess.run(
        [str(program[1]), os.devnull, "bytes"], capture_output=True, text=True, timeout=30, check=False
    )
    assert missing.returncode != 0
