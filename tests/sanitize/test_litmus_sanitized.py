# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The litmus tests of one direction under ThreadSanitizer: clean as they are; a race as soon as the fence is
left out, the signal is a bare store, or the wait's acquire is weakened. x86 hides all of these when the program
just runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from sanitized import ROOT, Outcome, Sanitized, run

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]
KERNELS = Path("tests/shmem/litmus/litmus.cpp")
TESTS = ["message", "put_fence", "put_amo", "put_signal"]


@pytest.fixture(scope="module")
def program(threads_build: Sanitized) -> Path:
    return threads_build.program(Path(__file__).parent / "litmus_main.cpp")


def run_litmus(program: Path, kernels: Path, test: str, attempts: int = 1) -> Outcome:
    for attempt in range(attempts):
        outcome = run(program, kernels, lanes=1, blocks=TESTS.index(test), warps=1, rounds=1 + attempt)
        if outcome.races:
            break
    return outcome


@pytest.mark.parametrize("test", TESTS)
def test_litmus_is_clean(threads_build: Sanitized, program: Path, test: str) -> None:
    outcome = run_litmus(program, threads_build.kernels(1, [ROOT / KERNELS]), test)
    assert (outcome.status, outcome.races) == (0, 0), outcome.output


@pytest.mark.parametrize("test", TESTS)
def test_a_missing_order_is_found(threads_build: Sanitized, program: Path, test: str) -> None:
    kernels = threads_build.kernels(1, [ROOT / KERNELS], ["-DLITMUS_WEAK"])
    outcome = run_litmus(program, kernels, test, attempts=8)
    assert outcome.races > 0, outcome.output
