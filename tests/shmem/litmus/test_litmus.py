# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Litmus tests of the memory model on what the machine really does: hundreds of thousands of rounds by default, many
times as many with `-m long`, and on a GPU (`-m gpu`) in many blocks at a time. docs/memory_model.md says what each
asks.

x86 shows store buffering only; that test must fail as soon as quiet is left out. What else is weakened is found by
ThreadSanitizer: tests/sanitize/test_litmus_sanitized.py.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from shmem_ranks import CPU_TARGETS, GPU_TARGETS, Ranks

import mori

MAKE = Callable[..., Ranks]
TESTS = ["message", "put_fence", "put_amo", "put_signal", "store_buffer", "independent"]
ON = pytest.mark.parametrize("target", [CPU_TARGETS[0], *GPU_TARGETS], indirect=True, ids=str)


def play(
    make_ranks: MAKE, test: str, rounds: int, *, weak: bool = False, blocks: int | None = None
) -> list[np.ndarray]:
    """Each rank's results."""
    size = 4 if test == "independent" else 2
    ranks = make_ranks(size, room=1 << 16, timeout_s=60)
    gpu = ranks.devices[0].kind != "cpu"
    if blocks is None:
        blocks = 16 if gpu else 1
    if gpu:
        rounds //= 8
    defines = {"LITMUS_WEAK": "1"} if weak else {}
    file = Path(__file__).parent / "litmus.cpp"
    width = {"store_buffer": 1, "independent": 8}.get(test, 0)
    nbytes = blocks * (rounds * width if width else 8)
    results = [device.allocate(nbytes) for device in ranks.devices]
    kernels = [
        mori.compile_kernel(file, device=device, defines=defines).kernel("litmus_run") for device in ranks.devices
    ]
    for rank in range(size):
        ranks.fill(rank, 0)
        ranks.devices[rank].fill(results[rank], 0, nbytes)
    for rank in range(size):
        arguments = ranks.world(rank) + struct.pack(
            "<QQQII", ranks.address(rank), rounds, results[rank], TESTS.index(test), 16 if rounds % 2 else 3
        )
        kernels[rank].launch(arguments, blocks=blocks, shared_bytes=16, stream=ranks.streams[rank])
    ranks.synchronize()
    for rank in range(size):
        assert ranks.error(rank).state == 0, (rank, ranks.error(rank))
    found = [ranks.read(rank, results[rank], nbytes) for rank in range(size)]
    for device, address in zip(ranks.devices, results, strict=True):
        device.free(address)
    return found


def both_missed(found: list[np.ndarray]) -> int:
    return int((found[0] & found[1]).sum())


def disagreements(found: list[np.ndarray], blocks: int) -> int:
    """Pairs of reads by which the two readers saw two stores in opposite order: rank 2 a newer x beside an older y,
    rank 3 a newer y beside an older x. Counters grow, so for every pair of rank 2 one of rank 3 decides."""
    total = 0
    x_then_y, y_then_x = (words.view(np.uint32).reshape(blocks, -1, 2).astype(np.int64) for words in found[2:])
    for first, second in zip(x_then_y, y_then_x, strict=True):
        later = np.searchsorted(second[:, 0], first[:, 1], side="right")  # the first pair with a newer y
        later_x = np.append(second[:, 1], np.iinfo(np.int64).max)[later]
        total += int((later_x < first[:, 0]).sum())
    return total


def check(make_ranks: MAKE, test: str, rounds: int) -> None:
    found = play(make_ranks, test, rounds)
    if test == "store_buffer":
        assert both_missed(found) == 0
    elif test == "independent":
        blocks = 1 if found[2].nbytes == 8 * rounds else 16
        assert disagreements(found, blocks) == 0
    else:
        assert found[1].view(np.uint64).sum() == 0


@ON
@pytest.mark.timeout(100)
@pytest.mark.parametrize("test", TESTS)
def test_litmus(make_ranks: MAKE, transport: str, test: str) -> None:
    check(make_ranks, test, 200_001 if transport == "p2p" else 10_001)  # a round of a queue is some 50 times as long


@ON
@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("test", TESTS)
def test_litmus_for_long(make_ranks: MAKE, test: str) -> None:
    check(make_ranks, test, 5_000_000)


@pytest.mark.timeout(100)
@pytest.mark.parametrize("transport", ["p2p"], indirect=True)
@pytest.mark.parametrize("target", [CPU_TARGETS[0]], indirect=True, ids=str)
def test_store_buffering_shows_without_quiet(make_ranks: MAKE) -> None:
    """The test can fail: on this machine, without a sanitizer."""
    for _ in range(10):
        if both_missed(play(make_ranks, "store_buffer", 200_001, weak=True)):
            return
    pytest.fail("ten times 200 thousand rounds without quiet, and each load saw the other side's store")


def test_disagreements_are_recognised() -> None:
    def pairs(*values: tuple[int, int]) -> np.ndarray:
        return np.array(values, np.uint32).view(np.uint8).ravel()

    empty = pairs()
    assert disagreements([empty, empty, pairs((1, 0), (2, 2)), pairs((1, 1), (2, 2))], 1) == 0
    assert disagreements([empty, empty, pairs((1, 0), (2, 2)), pairs((1, 0), (2, 2))], 1) == 1
