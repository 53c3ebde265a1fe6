# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""mlx5's structures and numbers, ours against those of Debian's infiniband/mlx5dv.h."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEADER = Path("/usr/include/infiniband/mlx5dv.h")


@pytest.mark.skipif(not HEADER.exists(), reason=f"no {HEADER} (apt-get install libibverbs-dev)")
@pytest.mark.parametrize("wrong", [False, True])
def test_static_asserts(wrong: bool) -> None:
    """They hold; with a number of the header replaced they do not, so they look."""
    source = Path(__file__).with_name("mlx5_header.cpp")
    command = [os.environ.get("CXX", "g++"), "-std=c++20", "-fsyntax-only", f"-I{ROOT}", f"-I{HEADER.parent.parent}"]
    if wrong:
        command += ["-include", str(HEADER), "-DMLX5_OPCODE_RDMA_READ=0x11"]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode == 0) is not wrong, done.stderr
