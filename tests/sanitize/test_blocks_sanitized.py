# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Flags of mori/blocks.hpp under ThreadSanitizer: clean as they are, and each order that is taken away is missed."""

from __future__ import annotations

from pathlib import Path

import pytest
from sanitized import ROOT, Sanitized, mutated, run, run_until_raced

pytestmark = [pytest.mark.timeout(400), pytest.mark.slow]
KERNELS = ROOT / "tests/device/kernels/blocks_flags.cpp"
FLAGS = "src/core/device/blocks_flags.hpp"


@pytest.fixture(scope="module")
def program(threads_build: Sanitized) -> Path:
    return threads_build.program(Path(__file__).parent / "blocks_flags_main.cpp")


@pytest.mark.parametrize("lanes", [1, 32], ids=lambda lanes: f"w{lanes}")
def test_flags_are_clean(threads_build: Sanitized, program: Path, lanes: int) -> None:
    outcome = run(program, threads_build.kernels(lanes, [KERNELS]), lanes=lanes, ranks=1, threads=2)
    assert (outcome.status, outcome.races) == (0, 0), outcome.output


MUTANTS = {
    "published-relaxed": ("store_release<S>(flag, value)", "store_relaxed<S>(flag, value)"),
    "published-before-all-lanes-wrote": (
        "  group.sync();\n  if (group.lane() == 0) store_release",
        "  if (group.lane() == 0) store_release",
    ),
    "arrival-relaxed": ("fetch_add_acq_rel<S>(counter", "fetch_add_relaxed<S>(counter"),
    "arrival-before-all-lanes-wrote": ("  group.sync();\n  bool last", "  bool last"),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_missing_orders_are_found(threads_build: Sanitized, program: Path, tmp_path: Path, mutant: str) -> None:
    tree = mutated(tmp_path, FLAGS, *MUTANTS[mutant])
    kernels = threads_build.kernels(32, [KERNELS], ["-I", str(tree)])
    outcome = run_until_raced(program, kernels, lanes=32)
    assert outcome.races > 0, outcome.output
