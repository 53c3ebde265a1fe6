# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""SHMEM between ranks of several hosts, which a test makes of one: load and store to neighbours, queues of a
software NIC and TCP to everybody else, in one context."""

from __future__ import annotations

import os
import signal
from typing import Any

import mori.ccl
import mori.ep
import mori.shmem
import pytest
import torch
from host_cases import run_cases
from mori.errors import ConfigError, PeerLost
from mori.testing import run_ranks

import mori
from mori import _meet

pytestmark = pytest.mark.timeout(100)


def on_host(name: str) -> None:
    """From now on this process, which is the test's own, counts as of that host."""
    _meet.host_mark = lambda: name.encode().ljust(8)


def open_context(rank: int, size: int, uid: bytes, **options: Any) -> mori.Context:
    options = {"device": "cpu", "timeout": 30, "heap_bytes": 4 << 20} | options
    return mori.init(uid=uid, rank=rank, world_size=size, **options)


def cases(rank: int, size: int, uid: bytes, hosts: str) -> None:
    on_host(hosts[rank])
    run_cases(rank, size, uid)


@pytest.mark.parametrize("hosts", ["aabb", "abc", "aba"])
def test_every_operation(hosts: str) -> None:
    run_ranks(cases, len(hosts), hosts, timeout=90)


def ways(rank: int, size: int, uid: bytes) -> None:
    """What a context says and refuses, and both ways to the same words."""
    on_host("ab"[rank // 2])
    near, far = rank ^ 1, (rank + 2) % 4
    with open_context(rank, size, uid) as ctx, mori.shmem.Shmem(ctx) as shm:
        assert ctx.transport == "mixed" and "2 ranks of this host" in repr(ctx), repr(ctx)
        words = shm.zeros((2,), torch.int64)
        word, other = words[:1], words[1:]
        assert ctx.peer_tensor(words, near).shape == (2,)
        with pytest.raises(ConfigError, match=f"peer={far} is on another host"):
            ctx.peer_tensor(words, far)
        with pytest.raises(ConfigError, match="other hosts"):
            ctx.heap.register(torch.zeros(4))
        for make in (lambda: mori.ep.Dispatcher(ctx, 64, 4, topk=2, max_tokens=8), lambda: mori.ccl.Communicator(ctx)):
            with pytest.raises(ConfigError, match="load and store"):
                make()
        shm.barrier()
        for _ in range(50):  # neighbours by the processor, the others through rank 0's NIC
            shm.atomic_add(word, 1, 0)
            shm.atomic_fetch_add(other, 2, 3)
        shm.quiet()
        shm.barrier()
        assert int(shm.atomic_fetch(word, 0)) == 200 and int(shm.atomic_fetch(other, 3)) == 400
        before = ctx.heap.core.capacity_bytes
        large = shm.zeros((3 << 20,), torch.float32)  # the heap grows, everywhere
        assert ctx.heap.core.capacity_bytes > before
        shm.barrier()
        for peer in (near, far):
            shm.put(large[(rank << 18) : (rank + 1) << 18], torch.full((1 << 18,), 1.0 + rank), peer)
        shm.barrier()
        for sender in (near, far):
            part = large[(sender << 18) : (sender + 1) << 18]
            assert torch.equal(part, torch.full((1 << 18,), 1.0 + sender))
        assert ctx.heap.fabric.violations() == []
        shm.barrier()


def test_both_ways_in_one_context() -> None:
    run_ranks(ways, 4, timeout=80)


def loss(rank: int, size: int, uid: bytes, victims: tuple[int, ...]) -> Any:
    """Ranks die between two barriers; the others hear who, and go on."""
    on_host("ab"[rank // 2])
    with open_context(rank, size, uid) as ctx:
        shm = mori.shmem.Shmem(ctx)
        shm.barrier()
        ctx.mesh.barrier("before")
        if rank in victims:
            os.kill(os.getpid(), signal.SIGKILL)

        def go_on() -> None:
            while True:
                shm.barrier()

        with pytest.raises(PeerLost) as caught:
            go_on()
        with ctx.recover(timeout=20) as fresh, mori.shmem.Shmem(fresh) as again:
            word = again.zeros((1,), torch.int64)
            again.atomic_add(word, 1, 0)
            again.barrier()
            return caught.value.peer, fresh.transport, int(again.atomic_fetch(word, 0)), again.barrier()


@pytest.mark.parametrize(("victims", "transport"), [((3,), "mixed"), ((2, 3), "p2p")], ids=["a-rank", "a-host"])
def test_what_is_left_goes_on(victims: tuple[int, ...], transport: str) -> None:
    results = run_ranks(loss, 4, victims, expendable=victims, timeout=90)
    left = [rank for rank in range(4) if rank not in victims]
    for rank in left:
        peer, way, total, _ = results[rank]
        assert peer in victims
        assert (way, total) == (transport, len(left))


def too_far(rank: int, size: int, uid: bytes) -> None:
    on_host(str(rank))
    with pytest.raises(ConfigError, match=r"transport='p2p', but ranks \d are on other hosts"):
        open_context(rank, size, uid, transport="p2p")


def test_load_and_store_between_hosts_is_refused() -> None:
    run_ranks(too_far, 2, timeout=40)
