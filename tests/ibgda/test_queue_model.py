# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Every interleaving of the queue algorithm's model (queue.pml): no entry is overwritten, rung before it is whole,
executed twice or completed early; no doorbell goes back; nobody waits for ever. Each rule taken away is found."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

MODEL = Path(__file__).parent / "queue.pml"
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(not (shutil.which("spin") and shutil.which("gcc")), reason="no spin (apt-get install spin)"),
]
SHAPES = {  # posters, posts of each, units of the ring
    "3x1-ring2": (3, 1, 2),
    "2x2-ring1": (2, 2, 1),
    "2x2-ring2": (2, 2, 2),
}
BROKEN = {  # and what must be found
    "NO_ROOM": "slot",
    "RING_BEFORE_ENCODE": "slot",
    "NO_ORDER": "",
    "NO_RING_LOCK": "end>doorbell",
    "READ_BEFORE_LOCK": "end>doorbell",
    "RING_ONCE": "invalid end state",
    "QUIET_READS_COMPLETED": "executed",
    "EARLY_COMPLETION": "executed",
}


def explore(folder: Path, shape: tuple[int, int, int], *defines: str) -> str:
    """The verifier's report; fails unless it has seen all there is or an error."""
    posters, posts, depth = shape
    words = [f"-DPOSTERS={posters}", f"-DPOSTS={posts}", f"-DDEPTH={depth}", *(f"-D{name}" for name in defines)]
    for command in (
        ["spin", *words, "-a", str(MODEL)],
        ["gcc", "-O1", "-w", "-DSAFETY", "-DMEMLIM=3000", "-o", "pan", "pan.c"],
    ):
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
    done = subprocess.run(["./pan", "-m200000"], cwd=folder, check=False, capture_output=True, text=True, timeout=200)
    assert re.search(r"errors: \d", done.stdout), done.stdout + done.stderr
    assert not re.search("max search depth too small|out of memory|MEMLIM", done.stdout), done.stdout
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_the_algorithm_holds(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    report = explore(tmp_path, shape)
    assert "errors: 0" in report, report
    assert "unreached in proctype" in report


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_found(tmp_path: Path, rule: str) -> None:
    report = explore(tmp_path, (3, 1, 2), rule)
    assert "errors: 1" in report, report
    assert re.search(r"pan:1: (assertion violated|invalid end state)", report), report
    assert BROKEN[rule] in report
