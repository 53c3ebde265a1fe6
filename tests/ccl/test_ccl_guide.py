# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The program of docs/ccl_guide.md runs, and its table names every call."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from mori.ccl import Communicator

GUIDE = (Path(__file__).resolve().parents[2] / "docs/ccl_guide.md").read_text()


def test_the_program_runs(tmp_path: Path) -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```$", GUIDE, re.M | re.S)
    (tmp_path / "guide.py").write_text(program)
    done = subprocess.run([sys.executable, "guide.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str([[7.5 + 4.0 * r] * 4 for r in range(4)])


def test_the_table_has_every_call() -> None:
    calls = {name for name, value in vars(Communicator).items() if callable(value) and not name.startswith("_")}
    assert set(re.findall(r"`(\w+)\([^`]*\)`", GUIDE.split("| call |")[1].split("\n\n")[0])) == calls
