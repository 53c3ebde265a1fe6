# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Behind a barrier every rank sees what every rank wrote before it; a rank that does not come is named.
Inside a kernel and in stream order."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable

import numpy as np
import pytest
from shmem_ranks import GPU_TARGETS, GROUPS, WAIT_BARRIER, Error, Ranks

from mori import _core

MAKE = Callable[..., Ranks]
SIGNALS = 4096  # heap offset; test data lie below


def fresh(make_ranks: MAKE, size: int, **options: float) -> Ranks:
    ranks = make_ranks(size, room=1 << 14, **options)
    for rank in range(size):
        ranks.fill(rank, 0)
    return ranks


def epochs(ranks: Ranks, rank: int) -> list[int]:
    values: list[int] = ranks.read(rank, ranks.address(rank, SIGNALS), ranks.size, np.uint64).tolist()
    return values


def queue_barrier(ranks: Ranks, rank: int, warps: int = 1) -> None:
    team = struct.pack("<QQQIIII", SIGNALS, 0, 0, 0, 1, ranks.size, rank)
    operation = struct.pack("<7QIIII", *[0] * 7, int(_core.ShmemHostOp.barrier), 0, 0, 0)
    ranks.launch(rank, "shmem_host", "shmem_host_word", ranks.world(rank) + team + operation, warps=warps)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("by", GROUPS)
def test_all_see_what_all_wrote(make_ranks: MAKE, by: str, size: int) -> None:
    ranks = fresh(make_ranks, size)
    rounds = 60
    ranks.selftest("barrier", by, signals=SIGNALS, rounds=rounds, warps=2)
    for rank in range(size):
        assert ranks.error(rank).state == 0, ranks.error(rank)
        assert ranks.results(rank, 1) == [[0, rounds]]
        assert epochs(ranks, rank) == [rounds] * size


@pytest.mark.timeout(100)
def test_ten_thousand_barriers(make_ranks: MAKE) -> None:
    ranks = fresh(make_ranks, 2, timeout_s=50)
    ranks.selftest("barrier", "block", signals=SIGNALS, rounds=10_000)
    for rank in range(2):
        assert ranks.results(rank, 1) == [[0, 10_000]], ranks.error(rank)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("start", [2**16 - 3, 2**32 - 3, 2**63 - 3])
def test_epochs_pass_the_width_of_narrower_counters(make_ranks: MAKE, start: int) -> None:
    ranks = fresh(make_ranks, 3)
    for rank in range(3):
        ranks.write(rank, ranks.address(rank, SIGNALS), np.full(3, start, np.uint64))
    ranks.selftest("barrier", "warp", signals=SIGNALS, rounds=6)
    for rank in range(3):
        assert ranks.results(rank, 1) == [[0, 6]], ranks.error(rank)
        assert epochs(ranks, rank) == [start + 6] * 3


@pytest.mark.timeout(60)
@pytest.mark.parametrize("missing", [0, 1, 3])
@pytest.mark.parametrize("by", GROUPS)
def test_a_missing_rank_is_named(make_ranks: MAKE, by: str, missing: int) -> None:
    ranks = fresh(make_ranks, 4)
    ranks.selftest("barrier", by, signals=SIGNALS, rounds=5)
    ranks.timeout_s = 0.3
    here = [rank for rank in range(4) if rank != missing]
    ranks.selftest("barrier", by, signals=SIGNALS, rounds=5, only=here)
    for rank in here:
        assert ranks.error(rank) == Error(2, WAIT_BARRIER, 0, peer=missing, expected=6, seen=5)
        assert ranks.results(rank, 1) == [[0, 0]]
        assert epochs(ranks, rank) == [5 if peer == missing else 6 for peer in range(4)]
    assert epochs(ranks, missing) == [5 if peer == missing else 6 for peer in range(4)]


@pytest.mark.timeout(60)
def test_a_late_rank_is_waited_for(make_ranks: MAKE) -> None:
    ranks = fresh(make_ranks, 3)
    for rank in (0, 2):
        queue_barrier(ranks, rank)
    time.sleep(0.2)
    assert epochs(ranks, 1) == [1, 0, 1]
    queue_barrier(ranks, 1)
    ranks.synchronize()
    assert [epochs(ranks, rank) for rank in range(3)] == [[1, 1, 1]] * 3
    assert all(ranks.error(rank).state == 0 for rank in range(3))


@pytest.mark.timeout(100)
@pytest.mark.parametrize("size", [1, 2, 5])
def test_in_stream_order(make_ranks: MAKE, size: int) -> None:
    """Barriers of launches of different shapes are the same barriers."""
    ranks = fresh(make_ranks, size)
    launches = 100
    for _ in range(launches):
        for rank in range(size):
            queue_barrier(ranks, rank, warps=1 + rank % 2)
    ranks.synchronize()
    for rank in range(size):
        assert ranks.error(rank).state == 0, ranks.error(rank)
        assert epochs(ranks, rank) == [launches] * size


@pytest.mark.timeout(100)
@pytest.mark.parametrize("target", GPU_TARGETS, indirect=True)
def test_graphs_replay(make_ranks: MAKE) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU to capture on")
    ranks = fresh(make_ranks, 3)
    streams = [torch.cuda.ExternalStream(stream) for stream in ranks.streams]
    queue_barrier(ranks, 0)  # loads the kernel, which may not happen while a stream captures
    queue_barrier(ranks, 1)
    queue_barrier(ranks, 2)
    ranks.synchronize()
    graphs = []
    for rank, stream in enumerate(streams):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            for _ in range(4):
                queue_barrier(ranks, rank)
        graphs.append(graph)
    for _ in range(10):
        for graph, stream in zip(graphs, streams, strict=True):
            with torch.cuda.stream(stream):
                graph.replay()
    ranks.synchronize()
    for rank in range(3):
        assert ranks.error(rank).state == 0, ranks.error(rank)
        assert epochs(ranks, rank) == [41] * 3
