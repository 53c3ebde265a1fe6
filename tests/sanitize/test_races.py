# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""ThreadSanitizer over ranks as threads and lanes as fibers: our kernels are clean, and each planted mistake
is found, so a clean report means something.

Protocols that order memory by signals are checked against the C++ memory model, whatever the host's ordering.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from sanitized import ROOT, Sanitized, mutated, run, run_until_raced

pytestmark = [pytest.mark.timeout(400), pytest.mark.slow]
HERE = Path(__file__).parent
EP = ROOT / "src/ops/ep"
EP_KERNELS = [EP / "ep_dispatch.kernel.cpp", *sorted(EP.glob("ep_combine_*.kernel.cpp"))]
EP_HOST = [EP / "dispatcher.cpp", EP / "combine_plan.cpp", ROOT / "src/core/context.cpp"]


class Shape(NamedTuple):
    ranks: int
    threads: int
    blocks: int
    warps: int

    def __str__(self) -> str:
        return f"{self.ranks}ranks-{self.threads}threads-{self.blocks}x{self.warps}"


def lanes_id(lanes: int) -> str:
    return f"w{lanes}"


FAULTS = {  # MORI_FAULT of exchange.kernel.cpp, and the warp sizes at which it is a mistake
    "signal-stored-relaxed": (1, [1, 32, 64]),
    "warps-counted-relaxed": (2, [1, 32, 64]),
    "no-sync_warp-before-the-count": (3, [32, 64]),
    "signal-awaited-relaxed": (4, [1, 32, 64]),
    "no-sync_block-after-the-wait": (5, [1, 32, 64]),
    "shared-memory-without-sync_block": (6, [1, 32, 64]),
}


@pytest.fixture(scope="module")
def exchange(threads_build: Sanitized) -> Path:
    return threads_build.program(HERE / "exchange_main.cpp")


@pytest.mark.parametrize("shape", [Shape(2, 1, 2, 2), Shape(3, 2, 2, 1)], ids=str)
@pytest.mark.parametrize("lanes", [1, 32, 64], ids=lanes_id)
def test_exchange_is_clean(threads_build: Sanitized, exchange: Path, lanes: int, shape: Shape) -> None:
    kernels = threads_build.kernels(lanes, [HERE / "exchange.kernel.cpp"])
    outcome = run(exchange, kernels, lanes=lanes, **shape._asdict())
    assert (outcome.status, outcome.races) == (0, 0), outcome.output


@pytest.mark.parametrize(
    ("fault", "lanes"), [(fault, lanes) for fault, (_, sizes) in FAULTS.items() for lanes in sizes]
)
def test_planted_faults_are_found(threads_build: Sanitized, exchange: Path, fault: str, lanes: int) -> None:
    define = f"-DMORI_FAULT={FAULTS[fault][0]}"
    kernels = threads_build.kernels(lanes, [HERE / "exchange.kernel.cpp"], [define])
    outcome = run_until_raced(exchange, kernels, lanes=lanes)
    assert outcome.races > 0, outcome.output
    assert "exchange.kernel.cpp" in outcome.output


def test_a_device_shared_by_threads_is_clean(threads_build: Sanitized) -> None:
    program = threads_build.program(HERE / "device_main.cpp")
    for lanes in (1, 32):
        kernels = threads_build.kernels(lanes, [ROOT / "src/core/device/selftest.kernel.cpp"])
        outcome = run(program, kernels, lanes=lanes, ranks=4, threads=2, blocks=3)
        assert (outcome.status, outcome.races) == (0, 0), outcome.output


@pytest.fixture(scope="module")
def ep(threads_build: Sanitized) -> Path:
    return threads_build.program(HERE / "ep_main.cpp", EP_HOST)


@pytest.mark.parametrize("shape", [Shape(2, 1, 2, 2), Shape(3, 2, 2, 1)], ids=str)
@pytest.mark.parametrize("lanes", [1, 32, 64], ids=lanes_id)
def test_dispatch_and_combine_are_clean(threads_build: Sanitized, ep: Path, lanes: int, shape: Shape) -> None:
    kernels = threads_build.kernels(lanes, EP_KERNELS)
    outcome = run(ep, kernels, lanes=lanes, **shape._asdict())
    assert (outcome.status, outcome.races) == (0, 0), outcome.output


MUTANTS = {
    "relaxed-signal": (
        "src/transport/p2p/p2p.hpp",
        "store_release<Scope::system>(peer_pointer",
        "store_relaxed<Scope::system>(peer_pointer",
    ),
    "cursor-moves-while-it-is-read": (
        "src/ops/ep/ep_dispatch_send.hpp",
        "    sync_warp();  // all lanes have read the cursor\n",
        "",
    ),
    "flag-raised-before-all-lanes-wrote": (
        "src/ops/ep/ep_dispatch_send.hpp",
        "      sync_block();\n      if (at == end) note_time(a.trace, kTraceSent);\n",
        "",
    ),
    "row-returned-before-all-lanes-wrote": (
        "src/ops/ep/ep_combine_send.hpp",
        "    group.sync();\n    uint64_t* flags",
        "    uint64_t* flags",
    ),
    "rows-awaited-relaxed": (
        "src/core/device/prelude.hpp",
        "return wait_for<Order::acquire, S>(",
        "return wait_for<Order::relaxed, S>(",
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mistakes_in_dispatch_are_found(threads_build: Sanitized, ep: Path, tmp_path: Path, mutant: str) -> None:
    tree = mutated(tmp_path, *MUTANTS[mutant])
    sources = [tree / source.relative_to(ROOT) for source in EP_KERNELS]
    kernels = threads_build.kernels(32, sources, ["-I", str(tree)])
    outcome = run_until_raced(ep, kernels, lanes=32)
    assert outcome.races > 0, outcome.output
