# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Registering tensors that somebody else allocated: reached in place where that is possible, and by a copy in
the heap on every rank as soon as one rank needs it."""

from __future__ import annotations

import pytest
import torch
from heap_ranks import cpu_heap
from mori.errors import ConfigError
from mori.testing import run_ranks

pytestmark = pytest.mark.timeout(60)


def ordinary_memory(rank: int, world_size: int, uid: bytes) -> None:
    with cpu_heap(rank, world_size, uid) as heap:
        tensor = torch.arange(12, dtype=torch.int64).view(3, 4) + 100 * rank
        reg = heap.register(tensor)
        assert reg.staged
        assert reg.nbytes == 96
        reg.publish()
        heap.barrier("published")
        for peer in range(world_size):
            theirs = reg.peer_tensor(peer)
            assert torch.equal(theirs, torch.arange(12).view(3, 4) + 100 * peer)
            assert reg.address(peer) == theirs.data_ptr()
        heap.barrier("read")
        reg.peer_tensor((rank + 1) % world_size)[0, 0] = -1 - rank
        heap.barrier("written")
        reg.fetch()
        assert int(tensor[0, 0]) == -1 - (rank - 1) % world_size
        reg.close()
        with pytest.raises(ConfigError, match="closed"):
            reg.publish()


@pytest.mark.parametrize("mode", ["process", "thread"])
@pytest.mark.parametrize("world_size", [1, 2, 3], ids=lambda n: f"{n}ranks")
def test_ordinary_memory_is_staged(mode: str, world_size: int) -> None:
    run_ranks(ordinary_memory, world_size, mode=mode)


def heap_memory(rank: int, world_size: int, uid: bytes) -> None:
    with cpu_heap(rank, world_size, uid) as heap:
        tensor = heap.empty((world_size + 1, 5), torch.float32, fill=0)
        used = heap.statistics.used_bytes
        row = tensor[rank]  # another offset on every rank
        reg = heap.register(row)
        assert not reg.staged
        assert heap.statistics.used_bytes == used
        assert reg.address() == row.data_ptr()
        for peer in range(world_size):
            assert reg.address(peer) == heap.address(tensor[peer], peer)
        reg.peer_tensor((rank + 1) % world_size).fill_(1 + rank)
        heap.barrier("written")
        assert (row == 1 + (rank - 1) % world_size).all()
        assert (tensor[world_size] == 0).all()
        reg.publish()
        reg.fetch()
        reg.close()


@pytest.mark.parametrize("world_size", [1, 3], ids=lambda n: f"{n}ranks")
def test_memory_of_the_heap_is_registered_as_itself(world_size: int) -> None:
    run_ranks(heap_memory, world_size, mode="thread")


def mixed(rank: int, world_size: int, uid: bytes) -> bool:
    with cpu_heap(rank, world_size, uid) as heap:
        mine = heap.empty((64,), torch.int32, fill=0)
        tensor = torch.zeros(64, dtype=torch.int32) if rank == 1 else mine
        reg = heap.register(tensor.fill_(rank))
        staged = reg.staged
        reg.publish()
        heap.barrier("published")
        assert [int(reg.peer_tensor(peer)[0]) for peer in range(world_size)] == list(range(world_size))
        reg.close()
        return staged


def test_staged_on_all_ranks_if_on_one() -> None:
    assert run_ranks(mixed, 3, mode="thread") == [True] * 3


def refused(rank: int, world_size: int, uid: bytes) -> str:
    with cpu_heap(rank, world_size, uid) as heap:
        with pytest.raises(ConfigError, match="contiguous"):
            heap.register(torch.zeros(4, 4).t())
        with pytest.raises(ConfigError, match="differs between ranks") as caught:
            heap.register(torch.zeros(4 + rank))
        shared = heap.empty((4,), torch.int32)
        if rank == 0:
            with pytest.raises(ConfigError, match="rank 1's memory"):
                heap.register(heap.peer_tensor(shared, 1))
        empty = heap.register(torch.zeros(0, 3))
        assert empty.peer_tensor(1).shape == (0, 3)
        empty.publish()
        empty.close()
        return str(caught.value)


def test_refusals_name_the_ranks() -> None:
    assert "rank 0 has 16; rank 1 has 20" in run_ranks(refused, 2, mode="thread")[0]
