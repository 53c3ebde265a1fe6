# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Thousands of calls of changing sizes, algorithms and communicators, with ranks that dawdle: state that is used
again, in another form, before everybody is done with it would show."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
import torch
from mori.testing import run_ranks

import mori


def soak(rank: int, size: int, uid: bytes, rounds: int, seed: int) -> list[str]:
    plan, mine = random.Random(seed), random.Random(seed * 100 + rank)
    wrong: list[str] = []
    with mori.init(uid=uid, rank=rank, world_size=size, device="cpu", timeout=60, heap_bytes=16 << 20) as ctx:
        comms: list[Any] = [mori.ccl.Communicator(ctx, chunk_bytes=chunk, blocks=3) for chunk in (512, 16384)]
        base = torch.arange(40_000, dtype=torch.int32)
        for round_ in range(rounds):
            comm, count = plan.choice(comms), plan.choice((1, 5, 100, 3000, plan.randrange(40_000)))
            what = plan.choice(("one_shot", "two_shot", "ll", "gather", "scatter", "broadcast"))
            add = plan.randrange(1000)
            if mine.random() < 0.02:
                time.sleep(mine.random() / 500)
            x = base[:count] + (add + rank)
            total = base[:count] * size + (add * size + size * (size - 1) // 2)
            if what == "gather":
                got, wanted = comm.all_gather(x), torch.cat([base[:count] + (add + r) for r in range(size)])
            elif what == "scatter":
                count = count // size * size
                got = comm.reduce_scatter(x[:count].clone())
                wanted = total[:count].view(size, -1)[rank]
            elif what == "broadcast":
                got, wanted = comm.broadcast(x, add % size), base[:count] + (add + add % size)
            else:
                got, wanted = comm.all_reduce(x, algorithm=what), total
            if not torch.equal(got, wanted):
                wrong.append(f"round {round_}: {what} of {count}")
                break
        comms[0].barrier()
    return wrong


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("size", "mode"), [(2, "process"), (3, "thread"), (4, "thread")])
def test_2000_calls(size: int, mode: str) -> None:
    assert run_ranks(soak, size, 2000, size, mode=mode, timeout=110) == [[]] * size


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("size", [2, 4])
def test_100000_calls(size: int) -> None:
    assert run_ranks(soak, size, 100_000, 7, timeout=1700) == [[]] * size
