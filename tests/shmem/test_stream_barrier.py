# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""_core.ShmemBarrier between processes and between threads that have a mori.Context each: what was written
before it is there behind it, and a rank that does not come, or dies, is named by the exception."""

from __future__ import annotations

import os
import signal
import time

import pytest
from mori.testing import run_ranks

import mori
from mori import _core

torch = pytest.importorskip("torch")
ROUNDS = 200


def make_barrier(ctx: mori.Context) -> tuple[_core.ShmemBarrier, object]:
    """The barrier, and the memory that must outlive it."""
    nbytes = _core.ShmemBarrier.heap_bytes(ctx.world_size)
    memory = ctx.heap.allocate(nbytes, purpose="barrier", fill=0)
    return _core.ShmemBarrier(ctx.core, heap_offset=memory.offset), memory


def meet(rank: int, size: int, uid: bytes) -> int:
    with mori.init(uid=uid, rank=rank, world_size=size, device="cpu", timeout=20, heap_bytes=1 << 16) as ctx:
        barrier, _memory = make_barrier(ctx)
        words = ctx.empty((2, size), torch.int64, fill=0)
        views = [ctx.peer_tensor(words, peer) for peer in range(size)]
        for number in range(1, ROUNDS + 1):
            for view in views:
                view[number % 2, rank] = number
            barrier.launch(stream=ctx.stream())
            ctx.check()
            assert words[number % 2].tolist() == [number] * size
        ctx.barrier()
    return rank


@pytest.mark.timeout(100)
@pytest.mark.parametrize("mode", ["process", "thread"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_all_see_what_all_wrote(size: int, mode: str) -> None:
    assert run_ranks(meet, size, mode=mode, timeout=60) == list(range(size))


def stay_away(rank: int, size: int, uid: bytes) -> tuple[object, ...]:
    with mori.init(uid=uid, rank=rank, world_size=size, device="cpu", timeout=0.5, heap_bytes=1 << 16) as ctx:
        barrier, _memory = make_barrier(ctx)
        barrier.launch(stream=0)
        ctx.check()
        if rank == 1:
            time.sleep(1.5)
            return ()
        barrier.launch(stream=0)
        with pytest.raises(mori.TimeoutError) as caught:
            ctx.check()
        time.sleep(1)  # so that rank 1 does not take this rank's leaving for a crash
        return (caught.value.what, caught.value.peer, caught.value.expected, caught.value.seen)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("mode", ["process", "thread"])
def test_a_missing_rank_is_named(mode: str) -> None:
    results = run_ranks(stay_away, 3, mode=mode, timeout=40)
    assert results == [("shmem.barrier", 1, 2, 1), (), ("shmem.barrier", 1, 2, 1)]


def die(rank: int, size: int, uid: bytes) -> tuple[int, float]:
    with mori.init(uid=uid, rank=rank, world_size=size, device="cpu", timeout=50, heap_bytes=1 << 16) as ctx:
        barrier, _memory = make_barrier(ctx)
        barrier.launch(stream=0)
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        start = time.monotonic()
        barrier.launch(stream=0)
        with pytest.raises(mori.PeerLost) as caught:
            ctx.check()
        return (caught.value.peer, time.monotonic() - start)


@pytest.mark.timeout(60)
def test_a_dead_rank_is_noticed_long_before_the_deadline() -> None:
    results = run_ranks(die, 2, mode="process", timeout=40, expendable=[1])
    peer, seconds = results[0]
    assert peer == 1
    assert seconds < 10


@pytest.mark.timeout(60)
def test_a_crooked_offset_is_refused() -> None:
    device = _core.open_device("cpu")
    context = _core.Context(device, rank=0, world_size=1, bases=0, timeout_ns=10**9, ranks_on_device=1)
    with pytest.raises(mori.ConfigError, match="heap_offset=12"):
        _core.ShmemBarrier(context, heap_offset=12)
