# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""A short run of the fuzzer of fuzz_main.cpp under AddressSanitizer. Longer, by hand:

PYTHONPATH=tests/io python -c "import net_programs as n; print(n.build('fuzz_main', 'address'))"   # its path
build/tests-io/fuzz_main-... requests 1 100000000
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from net_programs import build, compiler

pytestmark = pytest.mark.timeout(400)
TARGETS = {"handshake": 20000, "frames": 20000, "requests": 20000, "replies": 20000, "inlet": 1500}


@pytest.fixture(scope="module")
def program() -> Path:
    if compiler() is None:
        pytest.skip("no g++ to build the test programs with")
    return build("fuzz_main", "address")


@pytest.mark.parametrize("target", TARGETS)
def test_no_bytes_of_a_peer_break_a_parser(program: Path, target: str) -> None:
    command = [str(program), target, "1", str(TARGETS[target])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
