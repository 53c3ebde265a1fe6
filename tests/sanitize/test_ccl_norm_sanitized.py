# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""all_reduce + RMSNorm under ThreadSanitizer: clean as it is, and a meeting that is taken away is missed."""

from __future__ import annotations

from pathlib import Path

import pytest
from sanitized import ROOT, Sanitized, mutated, run, run_until_raced

pytestmark = [pytest.mark.timeout(400), pytest.mark.slow]
KERNEL = Path("src/ops/ccl/ccl_norm.kernel.cpp")
MAIN = Path(__file__).parent / "ccl_norm_main.cpp"


@pytest.fixture(scope="module")
def program(threads_build: Sanitized) -> Path:
    return threads_build.program(MAIN)


@pytest.mark.parametrize(
    ("lanes", "ranks", "rounds"),
    [(1, 3, 2), pytest.param(32, 2, 1, marks=pytest.mark.long), pytest.param(64, 2, 1, marks=pytest.mark.long)],
    ids=["w1", "w32", "w64"],  # 512 fibers of a block take a sanitizer long
)
def test_the_fused_sum_is_clean(threads_build: Sanitized, program: Path, lanes: int, ranks: int, rounds: int) -> None:
    kernels = threads_build.kernels(lanes, [ROOT / KERNEL])
    outcome = run(program, kernels, lanes=lanes, ranks=ranks, blocks=1 + (lanes == 1), rounds=rounds, timeout=300)
    assert (outcome.status, outcome.races) == (0, 0), outcome.output


@pytest.mark.long
def test_a_missing_meeting_is_found(threads_build: Sanitized, program: Path, tmp_path: Path) -> None:
    tree = mutated(tmp_path, "src/ops/ccl/ccl_norm.hpp", "if (!m.meet(false)) return false;", "")
    kernels = threads_build.kernels(1, [tree / KERNEL], ["-I", str(tree)])
    outcome = run_until_raced(program, kernels, lanes=1)
    assert outcome.races > 0, outcome.output
