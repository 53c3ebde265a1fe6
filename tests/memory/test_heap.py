# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The symmetric heap between ranks: what one writes at an address of another, the other reads, at equal
offsets, before and after growing, and memory is reused only when every rank has dropped it."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from heap_ranks import MIB, cpu_heap
from mori.errors import ConfigError
from mori.testing import run_ranks

pytestmark = pytest.mark.timeout(60)
modes = pytest.mark.parametrize("mode", ["process", "thread"])
worlds = pytest.mark.parametrize("world_size", [1, 2, 3, 5], ids=lambda n: f"{n}ranks")


def exchange_rows(rank: int, world_size: int, uid: bytes) -> list[int]:
    with cpu_heap(rank, world_size, uid) as heap:
        inbox = heap.empty((world_size, 1000), torch.int32, fill=0)
        for peer in range(world_size):
            heap.peer_tensor(inbox, peer)[rank] = 1 + rank * world_size + peer
        heap.barrier("written")
        for source in range(world_size):
            assert (inbox[source] == 1 + source * world_size + rank).all()
        bases = (ctypes.c_uint64 * world_size).from_address(heap.bases_address)
        assert list(bases) == [heap.core.address(peer, 0) for peer in range(world_size)]
        heap.barrier("read")
        return [heap.offset(inbox), heap.offset(inbox[1:]) - heap.offset(inbox) if world_size > 1 else 4000]


@modes
@worlds
def test_writes_reach_the_peer(mode: str, world_size: int) -> None:
    results = run_ranks(exchange_rows, world_size, mode=mode)
    assert results == [results[0]] * world_size
    assert results[0][1] == 4000


def grow_between(rank: int, world_size: int, uid: bytes) -> None:
    with cpu_heap(rank, world_size, uid) as heap:
        peer = (rank + 1) % world_size
        small = heap.empty((100,), torch.uint8)
        base = heap.core.address(peer, 0)
        heap.peer_tensor(small, peer).fill_(rank)
        descriptors = len(os.listdir("/proc/self/fd"))
        large = [heap.empty((3 * MIB + i,), torch.uint8) for i in range(4)]
        assert heap.statistics.capacity_bytes >= 14 * MIB
        assert heap.core.address(peer, 0) == base, "windows must not move"
        for tensor in large:
            heap.peer_tensor(tensor, peer)[-1] = 100 + rank
        heap.barrier("written")
        assert len(os.listdir("/proc/self/fd")) == descriptors, "chunks must not keep descriptors"
        left = (rank - 1) % world_size
        assert (small == left).all()
        assert [int(tensor[-1]) for tensor in large] == [100 + left] * 4
        heap.barrier("read")


@worlds
def test_grows_without_moving(world_size: int) -> None:
    run_ranks(grow_between, world_size)


def beyond_4_gib(rank: int, world_size: int, uid: bytes) -> int:
    with cpu_heap(rank, world_size, uid, heap_bytes=6 << 30, reserve_bytes=8 << 30) as heap:
        # debug poisons what it hands out, which would touch all pages
        heap.debug = False
        first = heap.allocate(5 << 30, purpose="sparse")
        tensor = heap.empty((1000,), torch.int64)
        peer = (rank + 1) % world_size
        far = (ctypes.c_uint64).from_address(first.address(peer) + (5 << 30) - 8)
        far.value = 7 + rank
        heap.peer_tensor(tensor, peer)[:] = rank
        heap.barrier("written")
        mine = (ctypes.c_uint64).from_address(first.address() + (5 << 30) - 8)
        assert mine.value == 7 + (rank - 1) % world_size
        assert (tensor == (rank - 1) % world_size).all()
        heap.barrier("read")
        return heap.offset(tensor)


def test_offsets_beyond_4_gib() -> None:
    assert run_ranks(beyond_4_gib, 2) == [5 * (1 << 30) + 256] * 2


def drop_and_reuse(rank: int, world_size: int, uid: bytes) -> None:
    with cpu_heap(rank, world_size, uid, debug=False) as heap:
        tensor = heap.empty((1000,), torch.float32)
        offset, used = heap.offset(tensor), heap.statistics.used_bytes
        view, keeper = tensor[10:20], rank == world_size - 1
        del tensor
        heap.collect()
        assert heap.statistics.used_bytes == used, "a view holds the memory"
        if not keeper:
            del view
        for _ in range(3):
            heap.collect()
            assert heap.statistics.used_bytes == used, "the last rank still holds it"
        if keeper:
            del view
        heap.collect()
        assert heap.statistics.used_bytes == 0
        assert heap.offset(heap.empty((1000,), torch.float32)) == offset


@modes
@pytest.mark.parametrize("world_size", [1, 2, 3], ids=lambda n: f"{n}ranks")
def test_reuses_when_all_have_dropped(mode: str, world_size: int) -> None:
    run_ranks(drop_and_reuse, world_size, mode=mode)


def peer_view_holds(rank: int, world_size: int, uid: bytes) -> None:
    with cpu_heap(rank, world_size, uid, debug=False) as heap:
        tensor = heap.empty((10,), torch.int32)
        theirs = heap.peer_tensor(tensor[2:4], (rank + 1) % world_size)
        del tensor
        heap.collect()
        assert heap.statistics.allocations == 1
        theirs.fill_(5)
        del theirs
        heap.collect()
        assert heap.statistics.allocations == 0


def test_a_view_of_a_peer_holds_the_memory() -> None:
    run_ranks(peer_view_holds, 2, mode="thread")


def many_dtypes(rank: int, world_size: int, uid: bytes) -> None:
    with cpu_heap(rank, world_size, uid) as heap:
        for dtype in (
            torch.bfloat16,
            torch.float8_e4m3fn,
            torch.bool,
            torch.uint16,
            torch.complex128,
            torch.int64,
        ):
            tensor = heap.empty((3, 5), dtype, fill=0)
            assert (tensor.shape, tensor.dtype, tensor.is_contiguous()) == ((3, 5), dtype, True)
            assert tensor.data_ptr() % 256 == 0
            assert not tensor.view(torch.uint8).any()
            theirs = heap.peer_tensor(tensor[1], (rank + 1) % world_size)
            assert (theirs.shape, theirs.dtype) == ((5,), dtype)
        for shape in ((0,), (4, 0, 3), ()):
            tensor = heap.empty(shape, torch.float32)
            assert tensor.shape == shape
            assert heap.peer_tensor(tensor, 0).shape == shape
        heap.barrier("end")


def test_shapes_and_dtypes() -> None:
    run_ranks(many_dtypes, 2, mode="thread")


def outlive(rank: int, world_size: int, uid: bytes) -> int:
    with cpu_heap(rank, world_size, uid) as heap:
        tensor = heap.empty((1000,), torch.int64, fill=0)
        theirs = heap.peer_tensor(tensor, (rank + 1) % world_size)
        heap.barrier("made")
    theirs += 1  # the heap is closed here, and perhaps there: memory lives as long as a tensor
    deadline = time.monotonic() + 10
    while int(tensor.sum()) != 1000 and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(ConfigError, match="closed"):
        heap.empty((1,), torch.int64)
    return int(tensor.sum())


@modes
def test_tensors_outlive_the_heap(mode: str) -> None:
    assert run_ranks(outlive, 2, mode=mode) == [1000, 1000]


def test_the_example_of_the_docs_runs() -> None:
    page = Path(__file__).parents[2] / "docs" / "symmetric_memory.md"
    example = page.read_text().split("```python\n")[1].split("```")[0]
    done = subprocess.run([sys.executable, "-c", example], capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
