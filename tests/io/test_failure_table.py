# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Each row of docs/io_failures.md names the test that proves it, and the status codes it speaks of exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PAGE = (HERE.parents[1] / "docs/io_failures.md").read_text()
TYPES = (HERE.parents[1] / "src/io/types.hpp").read_text()


@pytest.mark.timeout(60)
def test_every_row_is_proved() -> None:
    tests = set(re.findall(r"^def (test_\w+)", "\n".join(p.read_text() for p in HERE.glob("test_*.py")), re.M))
    table = PAGE.split("| what happened | the caller sees | test |")[1].split("\n\n")[0]
    rows = [line for line in table.splitlines()[2:] if line.startswith("|")]
    assert len(rows) > 20
    assert [row for row in rows if not (named := re.findall(r"`(test_\w+)`", row)) or not set(named) <= tests] == []


@pytest.mark.timeout(60)
def test_statuses_exist() -> None:
    assert {name.lower() for name in re.findall(r"`(ERR_\w+)`", PAGE)} <= set(re.findall(r"err_\w+", TYPES))
