# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Collectives that move bytes, against what torch makes of the same parts."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from ccl_ranks import Guarded, each, same

pytestmark = pytest.mark.timeout(120)


def numbers(rank: int, rows: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    return (torch.arange(rows * 3) + 1_000_000 * rank).to(dtype).view(rows, 3)


def moves(comm: Any) -> list[str]:
    wrong = []

    def check(what: str, got: torch.Tensor | None, wanted: torch.Tensor) -> None:
        if got is None or not same(got, wanted):
            wrong.append(f"{what}, {rows} rows of {dtype}")

    for rows, dtype in (
        (0, torch.int32),
        (1, torch.int16),
        (5, torch.uint8),
        (1201, torch.int32),
        (700, torch.float64),
    ):
        n, me = comm.size, comm.rank
        parts = [numbers(r, rows, dtype) for r in range(n)]
        whole = torch.cat(parts)
        check("all_gather", comm.all_gather(parts[me]), whole)
        out = torch.zeros_like(whole)
        out[me * rows : (me + 1) * rows] = parts[me]
        check("all_gather in place", comm.all_gather(out[me * rows : (me + 1) * rows], out=out), whole)

        theirs = [numbers(r, n * rows, dtype) for r in range(n)]
        wanted = torch.cat([t[me * rows : (me + 1) * rows] for t in theirs])
        check("all_to_all", comm.all_to_all(theirs[me]), wanted)
        x = theirs[me].clone()
        check("all_to_all in place", comm.all_to_all(x, out=x), wanted)
        for root in range(n):
            check("broadcast", comm.broadcast(parts[me].clone(), root), parts[root])
            got = comm.gather(parts[me], root)
            check("gather", got if me == root else whole, whole)
            guarded = Guarded(rows * 3, dtype, 1)
            out = guarded.tensor.view(rows, 3)
            comm.scatter(theirs[me] if me == root else None, out, root)
            check("scatter", out.clone(), theirs[root][me * rows : (me + 1) * rows])
            if guarded.hurt():
                wrong.append("scatter wrote outside")
        comm.barrier()
    return wrong


@pytest.mark.parametrize("lanes", [1, 32, 64], ids="w{}".format)
@pytest.mark.parametrize("size", [1, 2, 5], ids="{}ranks".format)
def test_every_move(size: int, lanes: int) -> None:
    assert each(moves, size, lanes=lanes) == [[]] * size


def splits(comm: Any, rounds: int) -> list[str]:
    wrong, n, me = [], comm.size, comm.rank
    for seed in range(rounds):
        pick = random.Random(seed)
        rows = [[pick.choice((0, 0, 1, 3, pick.randrange(900))) for _ in range(n)] for _ in range(n)]  # [from][to]
        if seed == 0:
            rows = [[0] * n for _ in range(n)]
        send, receive = rows[me], [rows[r][me] for r in range(n)]
        sent = [numbers(100 * r + me, rows[r][me]) for r in range(n)]
        x = torch.cat([numbers(100 * me + r, rows[me][r]) for r in range(n)])
        guarded = Guarded(sum(receive) * 3, torch.int32, 1)
        out = guarded.tensor.view(sum(receive), 3)
        comm.all_to_all(x, out=out, send=send, receive=receive)
        if not same(out.clone(), torch.cat(sent)) or guarded.hurt():
            wrong.append(f"seed {seed}")
    return wrong


@pytest.mark.parametrize("lanes", [1, 32], ids="w{}".format)
@pytest.mark.parametrize("size", [1, 2, 4], ids="{}ranks".format)
def test_unequal_splits(size: int, lanes: int) -> None:
    assert each(splits, size, 20 if lanes == 1 else 5, lanes=lanes) == [[]] * size


def barriers(comm: Any, shared: list[int]) -> list[str]:
    wrong = []
    for round_ in range(1, 50):
        shared[comm.rank] = round_
        comm.barrier()
        if min(shared) < round_:
            wrong.append(f"round {round_}: {shared}")
        comm.barrier()
    return wrong


def test_nobody_passes_a_barrier_alone() -> None:
    assert each(barriers, 3, [0, 0, 0]) == [[]] * 3
