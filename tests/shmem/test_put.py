# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""put writes exactly its bytes: every size and alignment, by threads, warps and blocks, to one's own heap, a
neighbour's and everybody's. The reference is the whole heap of every rank, poison included."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from shmem_ranks import GROUPS, POISON, Ranks

MAKE = Callable[..., Ranks]
SIZES = [0, 1, 3, 7, 8, 12, 28, 31, 4096]
REACH = {"self": (0, 1), "neighbour": (1, 1), "all": (0, 3)}  # distance, pes, of 3 ranks
SHAPE = {"thread": (1, 1), "warp": (2, 2), "block": (3, 2)}  # blocks, warps


def check_put(
    ranks: Ranks, by: str, nbytes: int, reach: tuple[int, int], *, to_shift: int = 0, from_shift: int = 0
) -> None:
    distance, pes = reach
    blocks, warps = SHAPE[by]
    groups = {"thread": min(3, ranks.warp_size), "warp": blocks * warps, "block": blocks}[by]
    stride = nbytes + 41  # odd, so that groups have all alignments
    payload = np.random.default_rng(nbytes).integers(0, 256, (ranks.size, groups, stride), np.uint8)
    for rank in range(ranks.size):
        ranks.fill(rank, POISON)
        ranks.write(rank, ranks.source[rank] + from_shift, payload[rank])
    ranks.selftest(
        "put",
        by,
        to=16 + to_shift,
        source=lambda rank: ranks.source[rank] + from_shift,
        nbytes=nbytes,
        stride=stride,
        groups=groups,
        distance=distance,
        pes=pes,
        blocks=blocks,
        warps=warps,
    )
    for rank in range(ranks.size):
        expected = np.full(ranks.room, POISON, np.uint8)
        for k in range(pes):
            writer = (rank - distance - k) % ranks.size
            for group in range(groups):
                start = 16 + to_shift + (writer * groups + group) * stride
                expected[start : start + nbytes] = payload[writer, group, :nbytes]
        different = np.flatnonzero(ranks.heap(rank) != expected)
        assert different.size == 0, f"rank {rank}: {different.size} bytes differ, the first at {different[0]}"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("reach", REACH)
@pytest.mark.parametrize("by", GROUPS)
def test_every_size_reaches_its_place_and_no_other(make_ranks: MAKE, by: str, reach: str) -> None:
    ranks = make_ranks(3, room=1 << 17)
    for nbytes in SIZES:
        check_put(ranks, by, nbytes, REACH[reach])


@pytest.mark.timeout(60)
@pytest.mark.parametrize("to_shift", [0, 1, 2, 4, 8, 12])
@pytest.mark.parametrize("by", GROUPS)
def test_every_alignment(make_ranks: MAKE, by: str, to_shift: int) -> None:
    ranks = make_ranks(2, room=1 << 14)
    for from_shift in (0, 1, 4, 8, 15):
        for nbytes in (4, 16, 33, 272):
            check_put(ranks, by, nbytes, (1, 1), to_shift=to_shift, from_shift=from_shift)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("nbytes", [1 << 20, (1 << 20) + 5], ids=["1MiB", "1MiB+5"])
@pytest.mark.parametrize("by", GROUPS)
def test_a_mebibyte(make_ranks: MAKE, by: str, nbytes: int) -> None:
    ranks = make_ranks(2, room=16 << 20)
    check_put(ranks, by, nbytes, (1, 1))


@pytest.mark.timeout(60)
def test_nothing_needs_no_pointers(make_ranks: MAKE) -> None:
    ranks = make_ranks(2, room=1 << 14)
    ranks.selftest("put", "warp", to=0, source=lambda rank: 0, nbytes=0, distance=1)
    assert all((ranks.heap(rank) == POISON).all() for rank in range(2))
