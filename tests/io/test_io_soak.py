# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Less than a minute of io_soak.py; `python tests/io/io_soak.py --seconds 1800` is the long one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = 45


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 200)
def test_soak() -> None:
    script = Path(__file__).with_name("io_soak.py")
    command = [sys.executable, script, "--seconds", str(SECONDS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS + 180)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    report = json.loads(done.stdout)
    for peer, counts in report["transfers"].items():
        assert counts.get("SUCCESS", 0) > 100, (peer, counts)
        assert report["disturbances"][peer], peer
