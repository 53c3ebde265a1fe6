# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The device prelude does on every target what its header says; NumPy is the reference."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.timeout(60)
SHAPES = [(1, 1), (3, 2), (7, 4)]


def shape_id(shape: Any) -> str:
    return f"{shape[0]}x{shape[1]}"


@pytest.mark.parametrize("shape", SHAPES, ids=shape_id)
def test_indices_ballot_and_shuffle(lab: Any, shape: tuple[int, int]) -> None:
    (blocks, warps), width = shape, lab.warp_size
    out = lab.array(np.zeros(blocks * warps * width * 8, np.uint64))
    lab.run("lanes", blocks, warps, out=out, value=5)
    got = lab.read(out, np.uint64, blocks * warps * width * 8).reshape(blocks, warps, width, 8)
    block, warp, lane = np.indices((blocks, warps, width))
    thirds = sum(1 << i for i in range(0, width, 3))
    assert (got[..., 0] == block).all()
    assert (got[..., 1] == warp).all()
    assert (got[..., 2] == lane).all()
    assert (got[..., 3] == thirds).all()
    assert (got[..., 4] == (lane + 1) % width * 7 + 5).all()
    assert (got[..., 5] == block).all(), "64-bit shuffle from lane 0"
    assert (got[..., 6] == (width > 5)).all()
    assert (got[..., 7] == (width << 48 | thirds.bit_count() << 40 | warps << 20 | blocks)).all()


def test_any_sees_the_last_lane(lab: Any) -> None:
    out = lab.array(np.zeros(lab.warp_size * 8, np.uint64))
    lab.run("lanes", out=out, value=lab.warp_size - 1)
    got = lab.read(out, np.uint64, lab.warp_size * 8).reshape(-1, 8)
    assert (got[:, 6] == 1).all()
    assert got[:, 4].tolist() == [(i + 1) % lab.warp_size * 7 + lab.warp_size - 1 for i in range(lab.warp_size)]


@pytest.mark.parametrize("shape", SHAPES, ids=shape_id)
def test_shared_memory_and_block_barrier(lab: Any, shape: tuple[int, int]) -> None:
    (blocks, warps), rounds = shape, 5
    lanes = warps * lab.warp_size
    out = lab.array(np.zeros(blocks * lanes + blocks, np.uint64))
    lab.run("shared", blocks, warps, shared_bytes=8 * lanes, out=out, value=rounds)
    got = lab.read(out, np.uint64, blocks * lanes + blocks)
    mirror = np.arange(lanes)[::-1]
    want = sum(1000 * (r + 1) + mirror for r in range(rounds))
    assert (got[: blocks * lanes].reshape(blocks, lanes) == want).all()
    if lab.target.kind == "cpu":
        poison = 0xA5A5A5A5A5A5A5A5
        assert (got[blocks * lanes :] == poison).all(), "shared memory must not look initialised"


@pytest.mark.parametrize("shape", SHAPES, ids=shape_id)
def test_every_lane_gets_its_own_ticket(lab: Any, shape: tuple[int, int]) -> None:
    (blocks, warps), each = shape, 3
    total = blocks * warps * lab.warp_size * each
    out, second = lab.array(np.zeros(1 + total, np.uint64)), lab.array(np.zeros(2, np.uint32))
    lab.run("count", blocks, warps, out=out, source=second, value=each)
    got = lab.read(out, np.uint64, 1 + total)
    assert got[0] == total
    assert (got[1:] == 1).all()
    assert lab.read(second, np.uint32, 2).tolist() == [total, 0]


@pytest.mark.parametrize("row_bytes", [0, 16, 48, 1008, 1024, 14336, 65552])
def test_warp_copy_is_bitwise(lab: Any, row_bytes: int) -> None:
    blocks, warps, guard = 3, 2, 64
    data = np.random.default_rng(row_bytes).integers(0, 256, blocks * warps * row_bytes + guard, dtype=np.uint8)
    source, out = lab.array(data), lab.array(np.zeros_like(data))
    lab.run("copy", blocks, warps, out=out, source=source, count=row_bytes)
    got = lab.read(out, np.uint8, data.size)
    different = np.flatnonzero(got[:-guard] != data[:-guard])
    assert different.size == 0, f"first differing offset {different[0]}"
    assert not got[-guard:].any(), "wrote behind the last row"


@pytest.mark.parametrize("target", [7, 2**40 + 1], ids=["small", "beyond32bits"])
def test_wait_ends_when_the_signal_has_come(lab: Any, target: int) -> None:
    out, signal = lab.array(np.zeros(1, np.uint64)), lab.array(np.array([target], np.uint64))
    lab.run("wait", 2, 2, out=out, source=signal, value=target)
    assert lab.read(out, np.uint64, 1)[0] == 1
    assert lab.error.state == 0


def test_wait_past_its_deadline_says_what_it_waited_for(lab: Any) -> None:
    out, signal = lab.array(np.zeros(1, np.uint64)), lab.array(np.array([41], np.uint64))
    start = time.monotonic()
    lab.run("wait", 1, 2, out=out, source=signal, value=42, count=3, timeout_s=0.05)
    assert 0.05 <= time.monotonic() - start < 5
    assert lab.read(out, np.uint64, 1)[0] == 2
    error = lab.error
    assert (error.state, error.wait, error.refusal) == (2, 2, 0), "Wait::signal, complete"
    assert (error.peer, error.expected, error.seen) == (3, 42, 41)
    # The context has failed: the next wait leaves at once and the first error stays.
    start = time.monotonic()
    lab.run("wait", out=out, source=signal, value=99, count=9)
    assert time.monotonic() - start < 5
    assert lab.error == error


def test_abort_ends_a_wait_without_a_deadline(cpu_lab: Any) -> None:
    lab = cpu_lab
    out, signal = lab.array(np.zeros(1, np.uint64)), lab.array(np.zeros(1, np.uint64))
    timer = threading.Timer(0.1, lab.set_abort, [1])
    timer.start()
    lab.run("wait", 2, 1, out=out, source=signal, value=1, timeout_s=0)
    timer.join()
    assert lab.read(out, np.uint64, 1)[0] == 2
    assert lab.error.state == 0, "nobody timed out"


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (5, 2), (40, 1)], ids=shape_id)
def test_blocks_that_wait_for_each_other_all_run(lab: Any, shape: tuple[int, int]) -> None:
    (blocks, warps), rounds = shape, 6
    out, arrived = lab.array(np.zeros(3 * blocks, np.uint64)), lab.array(np.zeros(1, np.uint64))
    lab.run("grid", blocks, warps, out=out, source=arrived, value=rounds)
    assert lab.error.state == 0
    want = [sum(100 * r + (b + 1) % blocks for r in range(1, rounds + 1)) for b in range(blocks)]
    assert lab.read(out, np.uint64, blocks).tolist() == want


def bfloat16_bits(values: np.ndarray) -> np.ndarray:
    u = values.view(np.uint32).astype(np.uint64)
    return ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype(np.uint16)


def test_narrowing_rounds_to_nearest_even(lab: Any) -> None:
    rng = np.random.default_rng(0)
    edges = np.array([0, -0.0, 1, 65504, 65519.99, 65520, -1e9, np.inf, -np.inf, 2**-24, 2**-25, 1.5 * 2**-25,
                      2**-14, 3.4e38, np.nan], np.float32)  # fmt: skip
    ties = (rng.integers(0, 2**16, 4000, dtype=np.uint32) << 16 | 0x8000).view(np.float32)
    half_ties = (rng.integers(0, 2**19, 4000, dtype=np.uint32) << 13 | 0x1000).view(np.float32)
    anything = rng.integers(0, 2**32, 50_000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    values = np.concatenate([edges, ties, half_ties, anything, rng.normal(0, 1, 10_000).astype(np.float32)])
    source, out = lab.array(values), lab.array(np.zeros(2 * values.size, np.uint16))
    lab.run("narrow", 2, 2, out=out, source=source, count=values.size)
    brain, half = lab.read(out, np.uint16, 2 * values.size).reshape(2, -1)
    nan = np.isnan(values)
    with np.errstate(over="ignore"):
        half_want = values.astype(np.float16)
    assert (brain[~nan] == bfloat16_bits(values)[~nan]).all()
    assert (half[~nan] == half_want.view(np.uint16)[~nan]).all()
    assert ((brain[nan] & 0x7FFF) > 0x7F80).all(), "NaN stays NaN"
    assert ((half[nan] & 0x7FFF) > 0x7C00).all(), "NaN stays NaN"


def test_widening_is_exact(lab: Any) -> None:
    patterns = np.arange(65536, dtype=np.uint16)
    source, out = lab.array(patterns), lab.array(np.zeros(2 * 65536, np.float32))
    lab.run("widen", 2, 2, out=out, source=source, count=65536)
    brain, half = lab.read(out, np.float32, 2 * 65536).reshape(2, -1)
    brain_want = (patterns.astype(np.uint32) << 16).view(np.float32)
    half_want = patterns.view(np.float16).astype(np.float32)
    for got, want in ((brain, brain_want), (half, half_want)):
        nan = np.isnan(want)
        assert np.isnan(got[nan]).all()
        assert (got[~nan].view(np.uint32) == want[~nan].view(np.uint32)).all()
