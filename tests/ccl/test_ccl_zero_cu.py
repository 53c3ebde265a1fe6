# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Collectives without a kernel: what the kernels move, in many steps, between calls of the other kind; and a member
that dies, stops, gives up or calls something else ends the waits of the others, who then say so."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from typing import Any

import pytest
import torch
from ccl_ranks import Guarded, each, same
from mori.errors import ConfigError, MoriError
from mori.testing import run_ranks

import mori

pytestmark = pytest.mark.timeout(120)
STAGING = 4096  # messages take many steps
COUNTS = (0, 1, 37, 1000, 5003)


def moves(comm: Any) -> list[str]:
    n, me, wrong = comm.size, comm.rank, []
    for at, count in enumerate(COUNTS):
        root = at % n
        parts = torch.arange(n * n * count, dtype=torch.int32).view(n, n, count)  # [from, to]
        mine, whole = Guarded(count, torch.int32, at % 3), Guarded(n * count, torch.int32, at % 2)
        mine.tensor.copy_(parts[me, 0])
        theirs, row = parts[me].reshape(-1).clone(), torch.empty(count, dtype=torch.int32)

        def expect(what: str, got: torch.Tensor | None, wanted: torch.Tensor, count: int = count) -> None:
            if got is None or not same(got.reshape(-1), wanted.reshape(-1).contiguous()):
                wrong.append(f"{what} of {count}")

        expect("all_gather", comm.all_gather(mine.tensor, out=whole.tensor, zero_cu=True), parts[:, 0])
        gathered = comm.gather(mine.tensor, root, zero_cu=True)
        if me == root:
            expect("gather", gathered, parts[:, 0])
        expect("all_to_all", comm.all_to_all(theirs, zero_cu=True), parts[:, me])
        expect("by kernel", comm.all_to_all(theirs), parts[:, me])
        comm.all_to_all(theirs, out=theirs, zero_cu=True)
        expect("all_to_all in place", theirs, parts[:, me])
        expect("scatter", comm.scatter(parts[root].reshape(-1).contiguous(), row, root, zero_cu=True), parts[root, me])
        whole.tensor.view(n, count)[me] = me
        own = whole.tensor[me * count : (me + 1) * count]
        comm.all_gather(own, out=whole.tensor, zero_cu=True)
        expect("all_gather in place", whole.tensor, torch.arange(n, dtype=torch.int32)[:, None].expand(n, count))
        expect("broadcast", comm.broadcast(mine.tensor, root, zero_cu=True), parts[root, 0])
        if mine.hurt() or whole.hurt():
            wrong.append(f"{count}: written outside")
    return wrong


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_they_move_what_kernels_move(size: int) -> None:
    assert each(moves, size, zero_cu_bytes=STAGING) == [[]] * size


def dawdling(comm: Any) -> list[str]:
    """Many calls of changing kinds and sizes, with ranks that are late."""
    plan, mine, wrong = random.Random(1), random.Random(comm.rank), []
    for round_ in range(150):
        count, zero_cu = plan.choice((1, 64, 3000)), plan.random() < 0.8
        if mine.random() < 0.05:
            time.sleep(mine.random() / 500)
        x = torch.full((count,), float(round_ * 10 + comm.rank))
        got = comm.all_gather(x, zero_cu=zero_cu).view(comm.size, count)
        if not bool((got == torch.arange(comm.size)[:, None] + 10.0 * round_).all()):
            wrong.append(f"round {round_} of {count}")
    return wrong


def test_members_that_dawdle() -> None:
    assert each(dawdling, 3, zero_cu_bytes=STAGING) == [[]] * 3


def subgroup(rank: int, size: int, uid: bytes) -> list[int]:
    with mori.init(uid=uid, rank=rank, world_size=size, device="cpu", timeout=30, heap_bytes=4 << 20) as ctx:
        comm = mori.ccl.Communicator(ctx, ranks=[2, 0], zero_cu_bytes=STAGING)
        if comm.rank < 0:
            return []
        return list(comm.all_gather(torch.tensor([rank]), zero_cu=True).tolist())


def test_some_ranks_only() -> None:
    assert run_ranks(subgroup, 3, mode="thread", timeout=60) == [[2, 0], [], [2, 0]]


def meet_and_call(comm: Any, x: torch.Tensor) -> None:
    comm.ctx.mesh.barrier()  # may know of the death already
    comm.all_gather(x, zero_cu=True)


def bereaved(rank: int, size: int, uid: bytes, how: str) -> tuple[str, object]:
    timeout = 30 if how == "killed" else 3
    with mori.init(uid=uid, rank=rank, world_size=size, device="cpu", timeout=timeout, heap_bytes=8 << 20) as ctx:
        comm = mori.ccl.Communicator(ctx, zero_cu_bytes=1 << 16)
        x = torch.ones(100_000)
        comm.all_gather(x, zero_cu=True)
        if rank == 1:
            ctx.mesh.barrier()  # nobody is in that call any more
            os.kill(os.getpid(), signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        with pytest.raises(MoriError) as caught:
            meet_and_call(comm, x)
        with pytest.raises(type(caught.value)):
            comm.all_gather(x, zero_cu=True)
        with ctx.recover(timeout=20 if how == "killed" else 6) as fresh:
            again = mori.ccl.Communicator(fresh, zero_cu_bytes=STAGING)
            assert again.all_gather(x[:10], zero_cu=True).tolist() == [1.0] * 20
            fresh.barrier()
        return type(caught.value).__name__, getattr(caught.value, "peer", None)


@pytest.mark.parametrize(
    ("how", "error"), [("killed", "PeerLost"), pytest.param("stopped", "TimeoutError", marks=pytest.mark.long)]
)
def test_a_member_that_is_gone(how: str, error: str) -> None:
    outcome = run_ranks(bereaved, 3, how, timeout=90, expendable=[1])
    assert outcome[0] == outcome[2] == (error, 1)


def impatient(
    rank: int, size: int, uid: bytes, gave_up: threading.Event, all_know: threading.Barrier
) -> tuple[str, object]:
    """Rank 0 gives up on rank 1, which comes afterwards; rank 2 has all the time."""
    with mori.init(
        uid=uid, rank=rank, world_size=size, device="cpu", timeout=3 if rank == 0 else 60, heap_bytes=4 << 20
    ) as ctx:
        comm = mori.ccl.Communicator(ctx, zero_cu_bytes=STAGING)
        if rank == 1:
            assert gave_up.wait(60)
        with pytest.raises(MoriError) as caught:
            comm.all_gather(torch.ones(5000), zero_cu=True)
        gave_up.set()
        all_know.wait(60)  # nobody is lost by leaving
        return type(caught.value).__name__, getattr(caught.value, "peer", None)


def test_nobody_believes_a_member_that_gave_up() -> None:
    outcome = run_ranks(impatient, 3, threading.Event(), threading.Barrier(3), mode="thread", timeout=90)
    assert outcome[0] == ("TimeoutError", 1)
    for error, peer in outcome[1:]:
        assert error == "TimeoutError" and peer in (0, 1, 2)  # 0, or another one who has heard of it first


def different(comm: Any) -> str:
    x = torch.ones(4)
    with pytest.raises(ConfigError, match="makes this call with other settings") as caught:
        comm.all_gather(x if comm.rank else x[:3], zero_cu=True)
    with pytest.raises(ConfigError, match="has failed; make a new one"):
        comm.all_gather(x, zero_cu=True)
    return str(caught.value)


def test_members_that_call_different_things_are_told() -> None:
    texts = each(different, 2, zero_cu_bytes=STAGING)
    assert "rank 1" in texts[0] and "rank 0" in texts[1]


def refused(comm: Any) -> None:
    x = torch.ones(4)
    with pytest.raises(ConfigError, match="make the communicator with zero_cu_bytes"):
        comm.all_gather(x, zero_cu=True)
    with pytest.raises(ConfigError, match="zero_cu=True is for equal parts"):
        comm.all_to_all(x, send=[2, 2], receive=[2, 2], zero_cu=True)
    with pytest.raises(ConfigError, match="zero_cu_bytes=-1 must not be negative"):
        mori.ccl.Communicator(comm.ctx, zero_cu_bytes=-1)
    comm.barrier()


def test_refusals() -> None:
    each(refused, 2)
