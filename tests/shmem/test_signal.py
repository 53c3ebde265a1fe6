# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""A signal comes behind its payload, a wait returns behind its signal, and a wait for a signal that does not
come ends with an error word that says which."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from shmem_ranks import GROUPS, WAIT_SIGNAL, Error, Ranks

MAKE = Callable[..., Ranks]
SHAPE = {"thread": (2, 1), "warp": (2, 2), "block": (3, 2)}  # blocks, warps
SIGNALS = 1 << 16  # heap offset


def zero_signals(ranks: Ranks) -> None:
    for rank in range(ranks.size):
        ranks.write(rank, ranks.address(rank, SIGNALS), np.zeros(1 << 10, np.uint64))


@pytest.mark.timeout(100)
@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("nbytes", [0, 7, 96, 4100])
@pytest.mark.parametrize("by", GROUPS)
def test_payload_is_there_when_its_signal_is(make_ranks: MAKE, by: str, nbytes: int, size: int) -> None:
    ranks = make_ranks(size, room=1 << 17)
    zero_signals(ranks)
    blocks, warps = SHAPE[by]
    groups = {"thread": 2, "warp": blocks * warps, "block": blocks}[by]
    rounds = 40
    ranks.selftest(
        "exchange",
        by,
        to=0,
        signals=SIGNALS,
        nbytes=nbytes,
        stride=nbytes + 24,
        rounds=rounds,
        groups=groups,
        distance=1,
        blocks=blocks,
        warps=warps,
    )
    for rank in range(size):
        assert ranks.error(rank).state == 0, ranks.error(rank)
        assert ranks.results(rank, groups) == [[0, rounds]] * groups
        signals = ranks.read(rank, ranks.address(rank, SIGNALS), 2 * groups + 1, np.uint64).tolist()
        assert signals == [rounds] * (2 * groups) + [0]


def lanes_of(ranks: Ranks, by: str, warps: int) -> int:
    return {"thread": 1, "warp": ranks.warp_size, "block": ranks.warp_size * warps}[by]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("value", [0, 5, 7, (1 << 64) - 1], ids=["0", "5", "equal", "largest"])
@pytest.mark.parametrize("by", GROUPS)
def test_wait_compares_unsigned_and_tells_all_lanes(make_ranks: MAKE, by: str, value: int) -> None:
    ranks = make_ranks(2, room=1 << 17, timeout_s=0.1)
    zero_signals(ranks)
    ranks.write(0, ranks.address(0, SIGNALS), np.array([7], np.uint64))
    ranks.selftest("wait", by, only=[0], signals=SIGNALS, rounds=value, distance=1, warps=2)
    lanes = lanes_of(ranks, by, 2)
    comes = value <= 7
    assert ranks.results(0, 1) == [[0, lanes] if comes else [lanes, 0]]
    assert ranks.error(0) == (Error(0, 0, 0, 0, 0, 0) if comes else Error(2, WAIT_SIGNAL, 0, 1, value, 7))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("by", GROUPS)
def test_the_error_names_who_should_have_signalled(make_ranks: MAKE, by: str) -> None:
    ranks = make_ranks(3, room=1 << 17, timeout_s=0.2)
    zero_signals(ranks)
    start = time.monotonic()
    ranks.selftest("wait", by, only=[0], signals=SIGNALS, rounds=3, distance=2, warps=2)
    assert 0.19 < time.monotonic() - start < 10
    assert ranks.error(0) == Error(2, WAIT_SIGNAL, 0, peer=2, expected=3, seen=0)
    assert ranks.results(0, 1) == [[lanes_of(ranks, by, 2), 0]]
    assert ranks.error(1).state == 0


@pytest.mark.timeout(60)
def test_a_failed_context_waits_for_nothing(make_ranks: MAKE) -> None:
    ranks = make_ranks(2, room=1 << 17, timeout_s=50)
    zero_signals(ranks)
    ranks.abort(0, lost_peer=1)
    start = time.monotonic()
    ranks.selftest("wait", "block", only=[0], signals=SIGNALS, rounds=1, distance=1)
    assert time.monotonic() - start < 10
    assert ranks.error(0).state == 0  # the host knows whom it lost
    assert ranks.results(0, 1) == [[lanes_of(ranks, "block", 1), 0]]
