# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The CPU device refuses what a GPU answers with a hang or with wrong data, and is usable afterwards."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from mori.errors import ConfigError, MoriError

from mori import _core

pytestmark = pytest.mark.timeout(60)
BLOCKS, WARPS = 3, 2


def check_usable(lab: Any) -> None:
    """Every lane of a following launch runs and meets the others."""
    lanes = WARPS * lab.warp_size
    out = lab.array(np.zeros(BLOCKS * lanes + BLOCKS, np.uint64))
    lab.run("shared", BLOCKS, WARPS, shared_bytes=8 * lanes, out=out, value=1)
    got = lab.read(out, np.uint64, BLOCKS * lanes).reshape(BLOCKS, lanes)
    assert (got == 1000 + np.arange(lanes)[::-1]).all()


# value of selftest_diverge, what the culprit does, what the others do
WARP_CASES = {
    "returns-before-sync_warp": (0, "the end of the kernel", "sync_warp()"),
    "ballot-against-shuffle": (1, "ballot()/any()", "shuffle() of 8 bytes"),
    "shuffles-of-two-sizes": (2, "shuffle() of 4 bytes", "shuffle() of 8 bytes"),
    "sync_block-against-sync_warp": (3, "sync_block()", "sync_warp()"),
    "returns-before-sync_block": (4, "the end of the kernel", "sync_block()"),
}


@pytest.mark.parametrize("case", WARP_CASES)
def test_divergence_names_lane_and_calls(lanes_lab: Any, case: str) -> None:
    lab, (value, culprit, others) = lanes_lab, WARP_CASES[case]
    out = lab.array(np.zeros(1, np.uint64))
    for _ in range(3):
        with pytest.raises(MoriError) as caught:
            lab.run("diverge", BLOCKS, WARPS, out=out, value=value)
        message = str(caught.value)
        last = rf"block {BLOCKS - 1} warp {WARPS - 1} lane {lab.warp_size - 1}"
        assert re.search(rf"selftest_diverge: {last} is at {re.escape(culprit)} while", message), message
        assert f"is at {others}" in message
        check_usable(lab)


def test_a_warp_that_leaves_its_block_waiting(cpu_lab: Any) -> None:
    with pytest.raises(MoriError, match=r"sync_block\(\)"):
        cpu_lab.run("diverge", BLOCKS, WARPS, value=5)
    check_usable(cpu_lab)


@pytest.mark.parametrize("bytes_", [8, 40, 4096])
def test_writing_behind_shared_memory_is_noticed(cpu_lab: Any, bytes_: int) -> None:
    message = f"block [0-2] wrote beyond its {bytes_} bytes of shared memory"
    with pytest.raises(MoriError, match=message):
        cpu_lab.run("diverge", BLOCKS, WARPS, shared_bytes=bytes_, value=6, count=bytes_)
    cpu_lab.run("diverge", BLOCKS, WARPS, shared_bytes=bytes_, value=6, count=bytes_ - 1)


def test_many_blocks_that_never_wait(cpu_lab: Any) -> None:
    blocks = 5000 // cpu_lab.warp_size
    out, second = cpu_lab.array(np.zeros(1 + 5000, np.uint64)), cpu_lab.array(np.zeros(1, np.uint32))
    cpu_lab.run("count", blocks, 1, out=out, source=second, value=1)
    assert cpu_lab.read(second, np.uint32, 1)[0] == blocks * cpu_lab.warp_size


def test_the_largest_block_runs(cpu_lab: Any) -> None:
    warps = cpu_lab.device.properties.max_warps
    lanes = warps * cpu_lab.warp_size
    assert lanes == 1024
    out = cpu_lab.array(np.zeros(lanes + 1, np.uint64))
    cpu_lab.run("shared", 1, warps, shared_bytes=8 * lanes, out=out, value=2)
    assert (cpu_lab.read(out, np.uint64, lanes) == 3000 + 2 * np.arange(lanes)[::-1]).all()


@pytest.mark.parametrize(
    ("blocks", "warps", "shared_bytes", "name"),
    [
        (0, 1, 0, "blocks=0"),
        (1, 0, 0, "warps=0"),
        (1, 1025, 0, "warps=1025"),
        (1, 1, 1 << 30, "shared_bytes="),
    ],
    ids=["no-blocks", "no-warps", "too-many-warps", "too-much-shared-memory"],
)
def test_bad_shapes_are_refused(cpu_lab: Any, blocks: int, warps: int, shared_bytes: int, name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        cpu_lab.run("nop", blocks, warps, shared_bytes)


@pytest.mark.parametrize(
    ("lanes", "threads", "ordinal", "name"),
    [(2, 1, 0, "cpu_lanes=2"), (1, 100_000, 0, "cpu_threads=100000"), (1, 1, 1, "ordinal=1")],
    ids=["lanes", "threads", "ordinal"],
)
def test_bad_options_are_refused(lanes: int, threads: int, ordinal: int, name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        _core.open_device("cpu", ordinal, "", lanes, threads)


def test_resident_blocks_do_run_together(cpu_lab: Any) -> None:
    arguments = cpu_lab.arguments()
    function = cpu_lab.device.function("selftest", "selftest_grid", len(arguments))
    resident = cpu_lab.device.max_resident_blocks(function, 4, 0)
    blocks = min(resident, 100 if cpu_lab.warp_size == 1 else 8)
    assert resident >= 8
    out, arrived = cpu_lab.array(np.zeros(3 * blocks, np.uint64)), cpu_lab.array(np.zeros(1, np.uint64))
    cpu_lab.run("grid", blocks, 4, out=out, source=arrived, value=2)
    assert cpu_lab.error.state == 0
    assert cpu_lab.device.max_resident_blocks(function, 4096, 0) == 0
