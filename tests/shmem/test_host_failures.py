# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""A rank that is killed or stopped during a wait, a barrier or a collective of mori.shmem is named by the exception of
the others, and they go on without it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import mori.shmem
import pytest
import torch
from mori.errors import MoriError, PeerLost, TimeoutError
from mori.testing import run_ranks

import mori

pytestmark = pytest.mark.timeout(60)
VICTIM = 1


def _wait(shm: Any, word: torch.Tensor) -> None:
    shm.signal_wait_until(word, "ge", 1, from_pe=VICTIM)


def _wait_for_anybody(shm: Any, word: torch.Tensor) -> None:
    shm.wait_until(word, "eq", 7)


def _barrier(shm: Any, word: torch.Tensor) -> None:
    shm.barrier()


def _sync(shm: Any, word: torch.Tensor) -> None:
    shm.sync()


def _broadcast(shm: Any, word: torch.Tensor) -> None:
    shm.broadcast(word, torch.ones(1, dtype=torch.int64), VICTIM)


def _sum(shm: Any, word: torch.Tensor) -> None:
    shm.sum_reduce(word, torch.ones(1, dtype=torch.int64))


def _split(shm: Any, word: torch.Tensor) -> None:
    shm.team_split_2d(shm.team_world, 2)


WAITS: dict[str, Callable[[Any, torch.Tensor], None]] = {
    work.__name__[1:]: work for work in (_wait, _wait_for_anybody, _barrier, _sync, _broadcast, _sum, _split)
}


def go_wrong(rank: int, size: int, uid: bytes, name: str, how: str) -> tuple[str, object, float, list[float]] | None:
    timeout = 40 if how == "killed" else 2
    with mori.init(uid=uid, rank=rank, world_size=size, device="cpu", timeout=timeout, heap_bytes=1 << 20) as ctx:
        shm = mori.shmem.Shmem(ctx)
        word = shm.zeros((1,), torch.int64)
        shm.barrier()
        ctx.mesh.barrier()  # nobody is in the other barrier any more
        if rank == VICTIM:
            os.kill(os.getpid(), signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        start = time.monotonic()
        with pytest.raises(MoriError) as caught:
            WAITS[name](shm, word)
        seconds = time.monotonic() - start
        with pytest.raises(type(caught.value)):
            shm.quiet()  # the context is unusable until it recovers
        shm.close()
        with ctx.recover(timeout=20 if how == "killed" else 4) as rest, mori.shmem.Shmem(rest) as again:
            total = again.zeros((1,), torch.float32)
            again.sum_reduce(total, torch.full((1,), 2.0))
            rest.barrier()
            return type(caught.value).__name__, getattr(caught.value, "peer", None), seconds, total.tolist()


@pytest.mark.parametrize("name", WAITS)
def test_killed(name: str) -> None:
    outcome = run_ranks(go_wrong, 3, name, "killed", timeout=50, expendable=[VICTIM])
    for rank in (0, 2):
        error, peer, seconds, total = outcome[rank]
        assert (error, peer) == (PeerLost.__name__, VICTIM)
        assert seconds < 20  # long before the deadline
        assert total == [4.0]


@pytest.mark.parametrize("name", ["wait", "wait_for_anybody", "barrier", "sum"])
def test_stopped(name: str) -> None:
    outcome = run_ranks(go_wrong, 3, name, "stopped", timeout=50, expendable=[VICTIM])
    for rank in (0, 2):
        error, peer, seconds, total = outcome[rank]
        assert error == TimeoutError.__name__
        assert peer == (None if name == "wait_for_anybody" else VICTIM)
        assert 1.9 < seconds < 20
        assert total == [4.0]


def poll(rank: int, size: int, uid: bytes) -> tuple[str, object, object, object]:
    with (
        mori.init(uid=uid, rank=rank, world_size=size, device="cpu", timeout=0.3, heap_bytes=1 << 20) as ctx,
        mori.shmem.Shmem(ctx) as shm,
    ):
        word = shm.full((1,), 3, torch.int64)
        with pytest.raises(TimeoutError) as caught:
            shm.signal_wait_until(word, "ge", 5, from_pe=0)
        return caught.value.what, caught.value.peer, caught.value.expected, caught.value.seen


def test_the_words_of_an_expired_wait() -> None:
    assert run_ranks(poll, 1) == [("shmem.signal_wait_until", 0, 5, 3)]
