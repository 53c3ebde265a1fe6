# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Collectives under ThreadSanitizer: clean as they are, and each ordering that is taken away is missed. Under
AddressSanitizer: nothing beyond their memory, whose size is exact."""

from __future__ import annotations

from pathlib import Path

import pytest
from sanitized import ROOT, Sanitized, mutated, run, run_until_raced

pytestmark = [pytest.mark.timeout(400), pytest.mark.slow]
KERNELS = [Path("src/ops/ccl/ccl_move.kernel.cpp"), Path("src/ops/ccl/ccl_reduce_integer.kernel.cpp")]
MAIN = Path(__file__).parent / "ccl_main.cpp"


@pytest.fixture(scope="module")
def program(threads_build: Sanitized) -> Path:
    return threads_build.program(MAIN)


@pytest.mark.parametrize("shape", [(2, 1, 2, 2), (3, 2, 2, 1)], ids=["2ranks-2x2", "3ranks-2x1"])
@pytest.mark.parametrize("lanes", [1, 32, pytest.param(64, marks=pytest.mark.long)], ids="w{}".format)
def test_collectives_are_clean(
    threads_build: Sanitized, program: Path, lanes: int, shape: tuple[int, int, int, int]
) -> None:
    kernels = threads_build.kernels(lanes, [ROOT / kernel for kernel in KERNELS])
    ranks, threads, blocks, warps = shape
    outcome = run(program, kernels, lanes=lanes, ranks=ranks, threads=threads, blocks=blocks, warps=warps)
    assert (outcome.status, outcome.races) == (0, 0), outcome.output


@pytest.mark.parametrize("lanes", [1, 32], ids=lambda lanes: f"w{lanes}")
def test_collectives_stay_inside_their_memory(addresses_build: Sanitized, lanes: int) -> None:
    kernels = addresses_build.kernels(lanes, [ROOT / kernel for kernel in KERNELS])
    outcome = run(addresses_build.program(MAIN), kernels, lanes=lanes, ranks=3)
    assert outcome.status == 0, outcome.output


MEMBER = "src/ops/ccl/ccl_member.hpp"
MUTANTS = {
    "flag-relaxed": (
        MEMBER,
        "store_release<Scope::system>(of<uint64_t>(member, signals)",
        "store_relaxed<Scope::system>(of<uint64_t>(member, signals)",
    ),
    "flag-before-all-lanes-wrote": (
        MEMBER,
        "    group.sync();  // all lanes have read it, and their writes come before the signals\n",
        "",
    ),
    "left-before-all-lanes-waited": (MEMBER, "    came = group.all(came);\n", ""),
    "one-buffer-only": (MEMBER, "(block_id() * 3 + (turn & 1))", "(block_id() * 3)"),
    "source-free-while-peers-read": (MEMBER, "static_cast<void>(meet(false));", ";"),
    "two-shot-meets-once": ("src/ops/ccl/ccl_reduce.hpp", "if (!m.meet(false)) return false;", ""),
}


RARE = {"left-before-all-lanes-waited"}  # takes many runs to show


@pytest.mark.parametrize("mutant", [pytest.param(m, marks=[pytest.mark.long] * (m in RARE)) for m in MUTANTS])
def test_missing_orders_are_found(threads_build: Sanitized, program: Path, tmp_path: Path, mutant: str) -> None:
    tree = mutated(tmp_path, *MUTANTS[mutant])
    kernels = threads_build.kernels(32, [tree / kernel for kernel in KERNELS], ["-I", str(tree)])
    outcome = run_until_raced(program, kernels, lanes=32)
    assert outcome.races > 0, outcome.output
