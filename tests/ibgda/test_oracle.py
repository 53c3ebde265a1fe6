# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The recorded bytes once more from the vendors' drivers, as Debian has them today (tools/provider_oracle)."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "provider_oracle"


def debian() -> str:
    release = Path("/etc/os-release")
    return release.read_text() if release.exists() else ""


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(
    platform.machine() != "x86_64" or "bookworm" not in debian(), reason="the drivers are Debian 12's, for x86-64"
)
def test_the_drivers_still_write_these_bytes(tmp_path: Path) -> None:
    build = subprocess.run([TOOL / "build.sh", tmp_path], capture_output=True, text=True, timeout=200, check=False)
    if build.returncode and not (tmp_path / ".fetched").exists():
        pytest.skip(f"cannot fetch the drivers: {(build.stderr.strip() or build.stdout.strip()).splitlines()[-1]}")
    assert build.returncode == 0, build.stderr
    for options in ([], ["--old"]):
        command = [sys.executable, TOOL / "record_golden.py", "--check", *options, tmp_path]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("same") == (1 if options else 3)
