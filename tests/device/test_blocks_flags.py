# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Flags of mori/blocks.hpp between the blocks of a launch: rings with credits, the last to arrive, deadlines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compile_quickly import quick
from conftest import Lab

import mori

pytestmark = pytest.mark.timeout(60)
SOURCE = Path(__file__).parent / "kernels/blocks_flags.cpp"
WAIT_SIGNAL = 2  # mori::Wait


@pytest.fixture
def module(each_lab: Lab, kernel_cache: Path) -> Any:
    return mori.compile_kernel(SOURCE, device=each_lab.device, flags=quick(each_lab.device))


def words(lab: Lab, count: int) -> int:
    return lab.array(np.zeros(count, np.uint64))


@pytest.mark.parametrize("depth", [1, 2, 5])
@pytest.mark.parametrize("group", ["warp", "block"])
def test_a_ring_loses_and_repeats_nothing(each_lab: Lab, module: Any, group: str, depth: int) -> None:
    rounds, warps = 23, 2
    lanes = each_lab.warp_size * (warps if group == "block" else 1)
    out, state = words(each_lab, lanes), words(each_lab, 2 + depth * lanes)
    args = each_lab.arguments(out=out, source=state, count=rounds, value=depth)
    module.kernel(f"ring_by_{group}").launch(args, blocks=2, warps=warps, shared_bytes=4)
    each_lab.device.synchronize(0)
    assert each_lab.error.state == 0
    neighbours = (np.arange(lanes, dtype=np.uint64) + 1) % lanes
    wanted = sum(round_ * 1000 + neighbours for round_ in range(1, rounds + 1))
    np.testing.assert_array_equal(each_lab.read(out, np.uint64, lanes), wanted)
    assert each_lab.read(state, np.uint64, 2).tolist() == [rounds, rounds]


def test_the_last_block_sees_what_all_wrote_in_every_launch(each_lab: Lab, module: Any) -> None:
    blocks, warps, launches = 4, 2, 3
    lanes = each_lab.warp_size * warps * blocks
    out, state = words(each_lab, 3), words(each_lab, 3 + lanes)
    args = each_lab.arguments(out=out, source=state, value=7)
    for launch in range(1, launches + 1):
        module.kernel("last_block_sums").launch(args, blocks=blocks, warps=warps, shared_bytes=4)
        each_lab.device.synchronize(0)
        assert each_lab.read(out, np.uint64, 3).tolist() == [7 * launch * lanes, launch, launch]


def test_a_flag_that_nobody_raises(each_lab: Lab, module: Any) -> None:
    lanes = each_lab.warp_size * 2
    out, state = words(each_lab, lanes), words(each_lab, 1)
    args = each_lab.arguments(out=out, source=state, value=9, timeout_s=0.05)
    module.kernel("await_nothing").launch(args, warps=2, shared_bytes=4)
    each_lab.device.synchronize(0)
    error = each_lab.error
    assert (error.wait, error.peer, error.expected, error.seen) == (WAIT_SIGNAL, 3, 9, 0)
    assert each_lab.read(out, np.uint64, lanes).tolist() == [1] * lanes
