# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""SHMEM under ThreadSanitizer: clean as it is, and each ordering that is taken away is missed. Under
AddressSanitizer: nothing beyond the heap, whose size is exact."""

from __future__ import annotations

from pathlib import Path

import pytest
from sanitized import ROOT, Sanitized, mutated, run, run_until_raced

pytestmark = [pytest.mark.timeout(400), pytest.mark.slow]
KERNELS = Path("src/shmem/shmem_selftest.kernel.cpp")
FAMILIES = ROOT / "tests/sanitize/shmem_families.kernel.cpp"


@pytest.fixture(scope="module")
def program(threads_build: Sanitized) -> Path:
    return threads_build.program(Path(__file__).parent / "shmem_main.cpp")


@pytest.fixture(scope="module")
def families(threads_build: Sanitized) -> Path:
    return threads_build.program(Path(__file__).parent / "shmem_families_main.cpp")


@pytest.mark.parametrize("shape", [(2, 1, 2, 2), (3, 2, 2, 1)], ids=["2ranks-2x2", "3ranks-2x1"])
@pytest.mark.parametrize("lanes", [1, 32, 64], ids=lambda lanes: f"w{lanes}")
def test_shmem_is_clean(threads_build: Sanitized, program: Path, lanes: int, shape: tuple[int, int, int, int]) -> None:
    kernels = threads_build.kernels(lanes, [ROOT / KERNELS])
    ranks, threads, blocks, warps = shape
    outcome = run(program, kernels, lanes=lanes, ranks=ranks, threads=threads, blocks=blocks, warps=warps)
    assert (outcome.status, outcome.races) == (0, 0), outcome.output


@pytest.mark.parametrize(("lanes", "ranks"), [(1, 3), (32, 2)], ids=["w1-3ranks", "w32-2ranks"])
def test_families_are_clean(threads_build: Sanitized, families: Path, lanes: int, ranks: int) -> None:
    outcome = run(families, threads_build.kernels(lanes, [FAMILIES]), lanes=lanes, ranks=ranks, blocks=1)
    assert (outcome.status, outcome.races) == (0, 0), outcome.output


@pytest.mark.parametrize("lanes", [1, 32], ids=lambda lanes: f"w{lanes}")
def test_families_stay_inside_their_memory(addresses_build: Sanitized, lanes: int) -> None:
    program = addresses_build.program(Path(__file__).parent / "shmem_families_main.cpp")
    outcome = run(program, addresses_build.kernels(lanes, [FAMILIES]), lanes=lanes, ranks=3, blocks=1)
    assert outcome.status == 0, outcome.output


@pytest.mark.parametrize("lanes", [1, 32], ids=lambda lanes: f"w{lanes}")
def test_shmem_stays_inside_its_memory(addresses_build: Sanitized, lanes: int) -> None:
    program = addresses_build.program(Path(__file__).parent / "shmem_main.cpp")
    outcome = run(program, addresses_build.kernels(lanes, [ROOT / KERNELS]), lanes=lanes)
    assert outcome.status == 0, outcome.output


MUTANTS = {
    "put_signal-stores-relaxed": (
        "src/shmem/shmem_signal.hpp",
        "signal_op<Order::release>(",
        "signal_op<Order::relaxed>(",
    ),
    "put_signal-without-sync": (
        "src/shmem/shmem_signal.hpp",
        "  group.sync();\n  if (group.lane() == 0) signal_op",
        "  if (group.lane() == 0) signal_op",
    ),
    "waits-relaxed": (
        "src/shmem/shmem_wait.hpp",
        "T(load_acquire<Scope::system>(",
        "T(load_relaxed<Scope::system>(",
    ),
    "warp-broadcast-without-sync": (
        "src/core/device/collective.hpp",
        "(ballot(of_first) & 1u) != 0;\n    sync_warp();",
        "(ballot(of_first) & 1u) != 0;",
    ),
    "block-broadcast-flag-reused-early": (
        "src/core/device/collective.hpp",
        "    sync();  // the flag may be written again\n",
        "",
    ),
    "barrier-without-quiet": (
        "src/shmem/shmem_order.hpp",
        "  fence_seq_cst<Scope::system>();  // last: signals of a barrier rest on it\n",
        "",
    ),
    "barrier-left-before-all-lanes-waited": (
        "src/shmem/shmem_team.hpp",
        "return group.all(came);",
        "return came;",
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_missing_orders_are_found(threads_build: Sanitized, program: Path, tmp_path: Path, mutant: str) -> None:
    tree = mutated(tmp_path, *MUTANTS[mutant])
    kernels = threads_build.kernels(32, [tree / KERNELS], ["-I", str(tree)])
    outcome = run_until_raced(program, kernels, lanes=32)
    assert outcome.races > 0, outcome.output


FAMILY_MUTANTS = {
    "fence-does-nothing": (
        "src/shmem/shmem_order.hpp",
        "  fence_acq_rel<Scope::system>();\n",
        "",
    ),
    "fence-without-meeting": (
        "src/shmem/shmem_order.hpp",
        "  group.sync();  // first: each lane's fence is then behind what all lanes did\n",
        "",
    ),
    "waits-relaxed": (
        "src/shmem/shmem_wait.hpp",
        "T(load_acquire<Scope::system>(",
        "T(load_relaxed<Scope::system>(",
    ),
    "reduction-put-before-all-lanes-combined": (
        "src/shmem/shmem_collective.hpp",
        "    group.sync();\n    for_members",
        "    for_members",
    ),
    "step-signals-relaxed": (
        "src/shmem/shmem_team.hpp",
        "Order O = Order::release",
        "Order O = Order::relaxed",
    ),
    "step-signals-before-all-lanes-wrote": (
        "src/shmem/shmem_team.hpp",
        "  group.sync();  // all lanes have read it, and their writes come before the signals\n",
        "",
    ),
    "get-returns-before-all-lanes-have": (
        "src/shmem/shmem_rma.hpp",
        "  get_bytes<true>(group, ctx, dest, source, bytes, pe);\n  group.sync();",
        "  get_bytes<true>(group, ctx, dest, source, bytes, pe);",
    ),
}


@pytest.mark.parametrize("mutant", FAMILY_MUTANTS)
def test_missing_orders_of_families_are_found(
    threads_build: Sanitized, families: Path, tmp_path: Path, mutant: str
) -> None:
    tree = mutated(tmp_path, *FAMILY_MUTANTS[mutant])
    kernels = threads_build.kernels(32, [FAMILIES], ["-I", str(tree)])
    outcome = run_until_raced(families, kernels, lanes=32)
    assert outcome.races > 0, outcome.output
