# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What the heap refuses, and that it says who and what: ranks that differ, bad arguments, too little room,
overruns, peers that died. After a refusal that all ranks saw, they can go on."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys

import pytest
import torch
from heap_ranks import MIB, cpu_heap
from mori.errors import CapacityError, ConfigError, MoriError, PeerLost, TransportError
from mori.testing import run_ranks

from mori import _core

pytestmark = pytest.mark.timeout(60)


def asymmetric(rank: int, world_size: int, uid: bytes, what: str) -> str:
    odd = rank == 1
    with cpu_heap(rank, world_size, uid) as heap:
        calls = {
            "size": lambda: heap.empty((5 if odd else 4,), torch.int32),
            "alignment": lambda: heap.allocate(64, alignment=512 if odd else 256),
            "purpose": lambda: heap.allocate(64, purpose="combine" if odd else "dispatch"),
            "fill": lambda: heap.allocate(64, fill=0 if odd else None),
        }
        with pytest.raises(ConfigError) as caught:
            calls[what]()
        kept = heap.empty((4,), torch.int32)
        heap.barrier("still in step")
        assert heap.statistics.allocations == 1
        del kept
        return str(caught.value)


@pytest.mark.parametrize("what", ["size", "alignment", "purpose", "fill"])
def test_ranks_that_differ_are_named(what: str) -> None:
    messages = run_ranks(asymmetric, 3, what, mode="thread")
    assert messages == [messages[0]] * 3
    assert "rank 0 has call 1" in messages[0]
    assert "rank 1 has call 1" in messages[0]
    assert "rank 2" not in messages[0]
    expected = {"size": ("16 bytes", "20 bytes"), "alignment": ("512",), "purpose": ("dispatch", "combine")}
    assert all(word in messages[0] for word in expected.get(what, ("filled with 0",)))


def different_heaps(rank: int, world_size: int, uid: bytes) -> str:
    with pytest.raises(ConfigError) as caught, cpu_heap(rank, world_size, uid, heap_bytes=(2 + rank) * MIB):
        pass
    return str(caught.value)


def test_heaps_of_different_size_are_refused() -> None:
    assert "heap_bytes differs between ranks: rank 0 has 2097152; rank 1" in run_ranks(different_heaps, 2)[0]


def bad_arguments(rank: int, world_size: int, uid: bytes) -> None:
    with cpu_heap(rank, world_size, uid) as heap:
        tensor = heap.empty((4, 6), torch.int32)
        cases = {
            "nbytes=-1": lambda: heap.allocate(-1),
            "fill=256": lambda: heap.allocate(1, fill=256),
            "alignment=3": lambda: heap.allocate(1, alignment=3),
            "alignment=4194304": lambda: heap.allocate(1, alignment=4 * MIB),
            "negative dimension": lambda: heap.empty((2, -1), torch.int8),
            "peer=7": lambda: heap.peer_tensor(tensor, 7),
            "peer=-1": lambda: heap.peer_tensor(tensor, -1),
            "contiguous": lambda: heap.peer_tensor(tensor.t(), 0),
            "not in this rank's": lambda: heap.peer_tensor(torch.zeros(3), 0),
            "outside the heap": lambda: heap.core.address(0, 1 << 40),
            "leave the heap": lambda: heap.core.fill(2 * MIB - 1, 0, 2),
        }
        for words, call in cases.items():
            with pytest.raises(ConfigError, match=words):
                call()
        assert heap.statistics.allocations == 1


def test_bad_arguments_are_named() -> None:
    run_ranks(bad_arguments, 1, mode="thread")


def too_large(rank: int, world_size: int, uid: bytes) -> str:
    with cpu_heap(rank, world_size, uid, reserve_bytes=8 * MIB) as heap:
        with pytest.raises(CapacityError) as caught:
            heap.empty((9 * MIB,), torch.uint8)
        heap.empty((5 * MIB,), torch.uint8)  # still grows within its window
        return str(caught.value)


def test_no_growth_beyond_the_window() -> None:
    message = run_ranks(too_large, 2, mode="thread")[0]
    assert "ranks 0, 1: " in message
    assert "its window is 8388608 bytes" in message


def overrun(rank: int, world_size: int, uid: bytes, how: str) -> str:
    with cpu_heap(rank, world_size, uid) as heap:
        tensor = heap.empty((10,), torch.int32, purpose="counters")
        if rank == 0:  # writes behind the end of rank 1's copy
            ctypes.memset(heap.address(tensor, 1) + 40 + 3, 0, 1)
        heap.barrier("written")
        if how == "check":
            call = heap.check_canaries
        else:
            del tensor
            call = heap.collect
        if rank != 1:
            call()
            return ""
        with pytest.raises(MoriError) as caught:
            call()
        return str(caught.value)


@pytest.mark.parametrize("how", ["check", "free"])
def test_an_overrun_names_its_allocation(how: str) -> None:
    message = run_ranks(overrun, 2, how, mode="thread")[1]
    assert "'counters' (40 bytes at offset 0 of rank 1's heap)" in message
    assert "byte 43" in message


def poisoned(rank: int, world_size: int, uid: bytes) -> None:
    with cpu_heap(rank, world_size, uid) as heap:
        tensor = heap.empty((1000,), torch.uint8)
        assert (tensor == _core.POISON_BYTE).all()
        tensor.fill_(1)
        del tensor
        assert (heap.empty((1000,), torch.uint8) == _core.POISON_BYTE).all()


def test_debug_poisons_what_it_hands_out() -> None:
    run_ranks(poisoned, 2, mode="thread")


def peer_dies(rank: int, world_size: int, uid: bytes) -> tuple[str, str]:
    with cpu_heap(rank, world_size, uid) as heap:
        tensor = heap.empty((1000,), torch.int32, fill=0)
        heap.barrier("made")
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        with pytest.raises(PeerLost) as lost:
            heap.empty((1000,), torch.int32)
        assert lost.value.peer == 1
        heap.peer_tensor(tensor, 1).fill_(3)  # a dead peer's memory stays mapped: no fault in a kernel
        with pytest.raises(TransportError) as unusable:
            heap.empty((1000,), torch.int32)
        return str(lost.value), str(unusable.value)


def test_a_dead_peer_breaks_the_heap_not_the_process() -> None:
    lost, unusable = run_ranks(peer_dies, 3, expendable=[1])[0]
    assert "rank 1" in lost
    assert "unusable since 'heap.call' failed" in unusable


def leftovers() -> set[str]:
    return {f"{folder}/{name}" for folder in ("/dev/shm", "/tmp") for name in os.listdir(folder)}


VICTIM = """
import os, signal, sys, torch
sys.path.insert(0, sys.argv[1])
from heap_ranks import cpu_heap
from mori.bootstrap import unique_id
with cpu_heap(0, 1, unique_id()) as heap:
    t = heap.empty((1 << 20,), torch.uint8)
    print("ready", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_rank_leaves_nothing_behind() -> None:
    before = leftovers()
    victim = subprocess.run(
        [sys.executable, "-c", VICTIM, os.path.dirname(__file__)], capture_output=True, text=True, timeout=50
    )
    assert victim.returncode == -signal.SIGKILL, victim.stderr
    assert "ready" in victim.stdout
    mine = {path for path in leftovers() - before if "mori" in path}
    assert not mine
