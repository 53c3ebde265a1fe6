# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""AddressSanitizer and UndefinedBehaviorSanitizer over the same programs: heaps and shared memory are
allocated at their exact sizes, so that a row too many is seen."""

from __future__ import annotations

from pathlib import Path

import pytest
from sanitized import ROOT, Sanitized, run

pytestmark = [pytest.mark.timeout(400), pytest.mark.slow]
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def exchange(addresses_build: Sanitized) -> Path:
    return addresses_build.program(HERE / "exchange_main.cpp")


@pytest.mark.parametrize("lanes", [1, 32, 64])
def test_exchange_stays_within_its_memory(addresses_build: Sanitized, exchange: Path, lanes: int) -> None:
    kernels = addresses_build.kernels(lanes, [HERE / "exchange.kernel.cpp"])
    for warps, threads in ((2, 1), (1, 2)):
        outcome = run(exchange, kernels, lanes=lanes, ranks=3, warps=warps, threads=threads)
        assert outcome.status == 0, outcome.output


@pytest.mark.parametrize("lanes", [1, 64])
def test_a_row_too_many_is_found(addresses_build: Sanitized, exchange: Path, lanes: int) -> None:
    kernels = addresses_build.kernels(lanes, [HERE / "exchange.kernel.cpp"], ["-DMORI_FAULT=7"])
    outcome = run(exchange, kernels, lanes=lanes)
    assert outcome.status != 0
    assert "AddressSanitizer: heap-buffer-overflow" in outcome.output


def test_a_device_shared_by_threads_leaks_nothing(addresses_build: Sanitized) -> None:
    program = addresses_build.program(HERE / "device_main.cpp")
    kernels = addresses_build.kernels(64, [ROOT / "src/core/device/selftest.kernel.cpp"])
    outcome = run(program, kernels, lanes=64, ranks=4, threads=2, blocks=3)
    assert outcome.status == 0, outcome.output


@pytest.mark.parametrize("lanes", [1, 64])
def test_dispatch_and_combine_stay_within_their_memory(addresses_build: Sanitized, lanes: int) -> None:
    host = [ROOT / "src/ops/ep/dispatcher.cpp", ROOT / "src/ops/ep/combine_plan.cpp", ROOT / "src/core/context.cpp"]
    program = addresses_build.program(HERE / "ep_main.cpp", host)
    kernels = addresses_build.kernels(lanes, sorted((ROOT / "src/ops/ep").glob("*.kernel.cpp")))
    for ranks, blocks in ((1, 1), (3, 2)):
        outcome = run(program, kernels, lanes=lanes, ranks=ranks, blocks=blocks)
        assert outcome.status == 0, outcome.output
