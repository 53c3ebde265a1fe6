# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Operands in symmetric memory, which peers read where they are: on all members, or on some, at any offset, in place or
apart; the source is the caller's again as soon as the call is over."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ccl_ranks import each, same, small_integers

pytestmark = pytest.mark.timeout(120)
COUNTS = (1, 5003, 12_288)  # elements of a part; chunks are of 4096 bytes
HOMES = ("all", "odd members", "results only", "sources only")


class Operands:
    """Tensors in the heap or beside it, by turns at other offsets."""

    def __init__(self, comm: Any, home: str) -> None:
        self.count = (comm.size + 1) * COUNTS[-1] + 64
        pools = [comm.ctx.empty((self.count,), torch.int32) for _ in range(2)]
        here = {
            "all": (True, True), "odd members": (comm.rank % 2 == 1,) * 2,
            "results only": (False, True), "sources only": (True, False),
        }[home]  # fmt: skip
        self.pools = [pool if shared else torch.empty_like(pool) for pool, shared in zip(pools, here, strict=True)]
        self.skew = 3 * comm.rank

    def take(self, which: int, values: torch.Tensor) -> torch.Tensor:
        self.skew = (self.skew + 1) % 32
        tensor = self.pools[which][self.skew : self.skew + values.numel()].view(values.shape)
        return tensor.copy_(values)


def every_call(comm: Any, home: str) -> list[str]:
    wrong, n, me = [], comm.size, comm.rank
    comm._in_place = 1  # small messages too
    operands = Operands(comm, home)
    for count in COUNTS:
        parts = [small_integers(r, count, torch.int32, count) for r in range(n)]
        wholes = [small_integers(10 + r, n * count, torch.int32, count) for r in range(n)]
        total, mine = torch.stack(wholes).sum(0).to(torch.int32), slice(me * count, (me + 1) * count)
        whole, part = wholes[me], parts[me]

        def check(what: str, x: torch.Tensor, got: torch.Tensor | None, wanted: torch.Tensor) -> None:
            kept = None if got is None else got.clone()
            x.fill_(-77)  # at once, while peers may be in the call
            if kept is not None and not same(kept, wanted):
                wrong.append(f"{what}, parts of {count}")  # noqa: B023

        for in_place in (False, True):
            name = " in place" if in_place else ""

            def pair(values: torch.Tensor, result: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                x = operands.take(0, values)
                return x, x if in_place else operands.take(1, torch.zeros_like(result))  # noqa: B023

            for algorithm in ("one_shot", "two_shot"):
                x, out = pair(whole, whole)
                check(f"all_reduce {algorithm}{name}", x, comm.all_reduce(x, out=out, algorithm=algorithm), total)
            x, out = pair(whole, part)
            out = x[mine] if in_place else out
            check(f"reduce_scatter{name}", x, comm.reduce_scatter(x, out=out), total[mine])
            x, out = pair(whole, whole)
            wanted = torch.cat([w[mine] for w in wholes])
            check(f"all_to_all{name}", x, comm.all_to_all(x, out=out), wanted)
            x, out = pair(torch.zeros_like(whole), whole) if in_place else pair(part, whole)
            if in_place:
                x = out[mine]
                x.copy_(part)
            check(f"all_gather{name}", x, comm.all_gather(x, out=out), torch.cat(parts))
            for root in range(n):
                x, out = pair(whole, whole)
                check(f"reduce{name}", x, comm.reduce(x, root, out=out if me == root else None), total)
                x, out = pair(whole, part)
                out = x[mine] if in_place else out
                got = comm.scatter(x if me == root else None, out, root)
                check(f"scatter{name}", x, got, wholes[root][mine])
        for root in range(n):
            x = operands.take(0, whole)
            check("broadcast", x, comm.broadcast(x, root), wholes[root])
            x = operands.take(0, part)
            out = operands.take(1, torch.zeros_like(whole))
            check("gather", x, comm.gather(x, root, out=out if me == root else None), torch.cat(parts))
    return wrong


@pytest.mark.parametrize("home", HOMES)
@pytest.mark.parametrize("size", [2, 3, 5], ids="{}ranks".format)
def test_every_call(size: int, home: str) -> None:
    assert each(every_call, size, home) == [[]] * size


@pytest.mark.parametrize("home", HOMES[:2])
@pytest.mark.parametrize("lanes", [32, 64], ids="w{}".format)
def test_lanes(lanes: int, home: str) -> None:
    assert each(every_call, 3, home, lanes=lanes) == [[]] * 3


def test_processes() -> None:
    assert each(every_call, 3, "all", mode="process") == [[]] * 3


def hurried(comm: Any, rounds: int) -> list[str]:
    """Calls in a row; each changes its source the moment it is over."""
    wrong = []
    x, out = (comm.ctx.empty((comm.size * 40_000,), torch.int32) for _ in range(2))
    for round_ in range(rounds):
        x.fill_(1 << (comm.rank + round_ % 8))
        total = sum(1 << (r + round_ % 8) for r in range(comm.size))
        comm.all_reduce(x, out=out, algorithm=("one_shot", "two_shot")[round_ % 2])
        x.fill_(-1)
        if not bool((out == total).all()):
            wrong.append(f"all_reduce of round {round_}")
        x.fill_(comm.rank + round_)
        comm.all_to_all(x, out=out)
        x.fill_(-1)
        wanted = torch.arange(comm.size, dtype=torch.int32).repeat_interleave(40_000) + round_
        if not same(out, wanted):
            wrong.append(f"all_to_all of round {round_}")
    return wrong


def test_a_source_is_the_caller_s_when_the_call_is_over() -> None:
    assert each(hurried, 3, 40, mode="process", chunk_bytes=1 << 16) == [[]] * 3
