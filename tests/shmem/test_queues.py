# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""SHMEM over queues when something is wrong: memory that is not registered, a peer's memory that there is not, a NIC
that stands still, a killed peer, calls that need load and store. Each is refused, or ends in an exception in time."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable

import mori.ep
import mori.shmem
import numpy as np
import pytest
import torch
from mori.errors import ConfigError, PeerLost, TimeoutError, TransportError
from mori.testing import run_ranks
from shmem_ranks import CPU_TARGETS, POISON, Ranks

import mori

MAKE = Callable[..., Ranks]
WAIT_COMPLETION, WAIT_ERROR, REFUSAL_UNREGISTERED = 34, 36, 8  # mori::Wait, mori::Refusal
pytestmark = pytest.mark.timeout(60)
FAMILIES = pytest.mark.parametrize("transport", ["mlx5", "bnxt_re", "ionic", "tcp"], indirect=True)
FAST = pytest.mark.parametrize("target", [CPU_TARGETS[0]], indirect=True, ids=str)


@FAMILIES
@FAST
def test_unregistered_memory_is_refused_and_nothing_sent(make_ranks: MAKE) -> None:
    ranks = make_ranks(2, room=1 << 14)
    elsewhere = np.arange(4096, dtype=np.uint8)
    ranks.selftest("put", "warp", only=[0], source=lambda rank: elsewhere.ctypes.data, nbytes=4096, distance=1)
    error = ranks.error(0)
    assert (error.state, error.refusal) == (2, REFUSAL_UNREGISTERED)
    assert (error.peer, error.expected, error.seen) == (0, 4096, elsewhere.ctypes.data)
    assert (ranks.heap(1) == POISON).all()


@FAMILIES
@FAST
def test_a_small_value_needs_no_registration(make_ranks: MAKE) -> None:
    ranks = make_ranks(2, room=1 << 14)
    elsewhere = np.arange(8, dtype=np.uint8)
    ranks.selftest("put", "warp", only=[0], source=lambda rank: elsewhere.ctypes.data, nbytes=8, distance=1)
    assert ranks.error(0).state == 0
    assert ranks.heap(1, 8).tolist() == list(range(8))


@FAMILIES
@FAST
@pytest.mark.parametrize("nbytes", [8, 4096])
@pytest.mark.parametrize("where", ["far", "reserved"])
def test_an_address_beyond_the_heap_kills_the_queue(make_ranks: MAKE, where: str, nbytes: int) -> None:
    ranks = make_ranks(2, room=1 << 14)
    stride = 1 << 40 if where == "far" else ranks.heaps[0].capacity_bytes  # address space that nothing is mapped to
    ranks.selftest("put", "warp", only=[1], stride=stride, nbytes=nbytes, distance=1)  # the place of rank 1
    error = ranks.error(1)
    assert (error.state, error.wait, error.peer) == (2, WAIT_ERROR, 0)
    assert (ranks.heap(0) == POISON).all()


@FAMILIES
@FAST
def test_a_nic_that_stands_still_ends_the_wait(make_ranks: MAKE) -> None:
    ranks = make_ranks(2, room=1 << 14, timeout_s=0.2)
    ranks.fabrics[0].stop()
    start = time.monotonic()
    ranks.selftest("put", "warp", only=[0], nbytes=4096, distance=1)
    assert 0.19 < time.monotonic() - start < 5
    assert ranks.error(0)[:2] == (2, WAIT_COMPLETION)


def stopped(rank: int, size: int, uid: bytes) -> str:
    with mori.init(
        uid=uid, rank=rank, world_size=size, device="cpu", timeout=1, heap_bytes=8 << 20, transport="ibgda"
    ) as ctx:
        shm = mori.shmem.Shmem(ctx)
        inbox = shm.zeros((1000,), torch.float32)
        shm.barrier()
        ctx.mesh.barrier()
        ctx.heap.fabric.stop()
        with pytest.raises(TimeoutError) as caught:
            shm.put(inbox, torch.ones(1000), 1 - rank)
        return caught.value.what


def test_a_stopped_nic_is_a_timeout() -> None:
    assert run_ranks(stopped, 2, mode="thread", timeout=40) == ["ibgda.completion"] * 2


def without_a_peer(rank: int, size: int, uid: bytes) -> float | None:
    with mori.init(
        uid=uid, rank=rank, world_size=size, device="cpu", timeout=30, heap_bytes=8 << 20, transport="ibgda"
    ) as ctx:
        shm = mori.shmem.Shmem(ctx)
        shm.barrier()
        ctx.mesh.barrier()  # nobody is in the other barrier any more
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        start = time.monotonic()
        with pytest.raises(PeerLost, match="rank 1 died"):
            shm.barrier()
        took = time.monotonic() - start
        with ctx.recover(timeout=20) as fresh, mori.shmem.Shmem(fresh) as again:
            assert (fresh.transport, fresh.world_size) == ("ibgda", 2)
            word = again.zeros((1,), torch.int64)
            again.atomic_add(word, 5, 0)
            again.barrier()
            assert again.atomic_fetch(word, 0) == 10
            again.barrier()
        return took


@pytest.mark.parametrize("mover", ["shm", "tcp"])
def test_a_killed_peer_is_named_and_the_others_go_on(mover: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORI_IBGDA_MOVER", mover)
    took = run_ranks(without_a_peer, 3, timeout=50, expendable=[1])
    assert took[1] is None and max(took[0] or 99, took[2] or 99) < 20


def grown(rank: int, size: int, uid: bytes) -> None:
    with mori.init(uid=uid, rank=rank, world_size=size, device="cpu", heap_bytes=4 << 20, transport="ibgda") as ctx:
        shm = mori.shmem.Shmem(ctx)
        before = ctx.heap.core.capacity_bytes
        inbox = shm.zeros((2 << 20,), torch.float32)
        assert ctx.heap.core.capacity_bytes > before
        shm.barrier()
        shm.put(inbox, torch.full((2 << 20,), 1.0 + rank), 1 - rank)
        shm.barrier()
        assert torch.equal(inbox, torch.full((2 << 20,), 2.0 - rank))
        assert ctx.heap.fabric.violations() == []


@pytest.mark.parametrize("mover", ["shm", "tcp"])
def test_queues_reach_what_the_heap_has_grown_by(mover: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORI_IBGDA_MOVER", mover)
    run_ranks(grown, 2, timeout=40)


def hung_up(rank: int, size: int, uid: bytes) -> str:
    with mori.init(
        uid=uid, rank=rank, world_size=size, device="cpu", timeout=20, heap_bytes=8 << 20, transport="ibgda"
    ) as ctx:
        shm = mori.shmem.Shmem(ctx)
        inbox = shm.zeros((1000,), torch.float32)
        shm.barrier()
        ctx.mesh.barrier()
        said = ""
        if rank == 1:
            ctx.heap.fabric.stop()
        ctx.mesh.barrier()
        if rank == 0:
            with pytest.raises(TransportError) as caught:
                shm.put(inbox, torch.ones(1000), 1)
            said = str(caught.value)
        ctx.mesh.barrier()
        return said


def test_a_nic_that_hung_up_is_named_with_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORI_IBGDA_MOVER", "tcp")
    said = run_ranks(hung_up, 2, timeout=50)[0]
    assert re.search(r"rank 1 failed: the peer does not answer .*, rank 1 at 127\.0\.0\.1 port \d+: ", said), said


def other_mover(rank: int, size: int, uid: bytes) -> None:
    os.environ["MORI_IBGDA_MOVER"] = ("shm", "tcp")[rank]
    with pytest.raises(ConfigError, match="MORI_IBGDA_MOVER"):
        mori.init(uid=uid, rank=rank, world_size=size, device="cpu", heap_bytes=1 << 20, transport="ibgda")


def test_movers_that_differ_are_refused() -> None:
    run_ranks(other_mover, 2, timeout=40)


def only_by_load_and_store(rank: int, size: int, uid: bytes) -> None:
    with mori.init(uid=uid, rank=rank, world_size=size, device="cpu", heap_bytes=8 << 20, transport="ibgda") as ctx:
        assert "ibgda" in repr(ctx) and "software NIC" in repr(ctx)
        with pytest.raises(ConfigError, match=r"transport='ibgda', not 'p2p'"):
            mori.ep.Dispatcher(ctx, 64, 4, topk=2, max_tokens=8)
        word = ctx.empty((1,), torch.int64, fill=0)
        with pytest.raises(ConfigError, match="not by load and store"):
            ctx.peer_tensor(word, 1 - rank)
        ctx.barrier()


def test_what_loads_and_stores_is_refused() -> None:
    run_ranks(only_by_load_and_store, 2, mode="thread", timeout=40)


def unknown(rank: int, size: int, uid: bytes) -> None:
    with pytest.raises(ConfigError, match="transport='carrier pigeon': allowed are auto, p2p, ibgda"):
        mori.init(uid=uid, rank=rank, world_size=size, device="cpu", heap_bytes=1 << 20, transport="carrier pigeon")


def test_transports_that_there_are_not() -> None:
    run_ranks(unknown, 1, mode="thread", timeout=40)
