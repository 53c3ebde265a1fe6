# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""ThreadSanitizer and AddressSanitizer over the shm and file backends: threads that submit, wait, stop and revoke."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import backend_lab as b
import pytest
from fixed_addresses import FIXED_ADDRESSES

pytestmark = [pytest.mark.timeout(500), pytest.mark.slow]
SANITIZERS = {"thread": ["-fsanitize=thread"], "address": ["-fsanitize=address,undefined"]}


@pytest.mark.parametrize("sanitizer", SANITIZERS)
def test_crowds_of_threads_are_clean(tmp_path: Path, sanitizer: str) -> None:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    program = tmp_path / "program"
    sources = [Path(__file__).with_name("backends_main.cpp"), *b.SOURCES[1:]]  # it includes the first
    flags = [flag for flag in b.FLAGS if flag not in ("-O1", "-fPIC")]
    b.compile_all([compiler, *flags, "-O1", *SANITIZERS[sanitizer]], sources, program, tmp_path)
    run = subprocess.run(
        [*FIXED_ADDRESSES, str(program), str(tmp_path)], capture_output=True, text=True, timeout=150, check=False
    )
    assert run.returncode == 0 and "WARNING" not in run.stderr and "ERROR" not in run.stderr, run.stderr[-6000:]
