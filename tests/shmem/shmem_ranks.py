# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""`Ranks`: several ranks in one process, each with a device, a stream and its part of a symmetric heap.

On a GPU all of them share device 0, so one GPU runs every test (`-m gpu`). Nothing here goes through
mori.Context: the tests place bytes in the heap and see every byte that a kernel writes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from mori import _core

GROUPS = {"thread": 0, "warp": 1, "block": 2}  # mori::SelfTestGroup
POISON = 0xA5
WAIT_BARRIER, WAIT_SIGNAL = 1, 2  # mori::Wait


class Target(NamedTuple):
    kind: str
    lanes: int = 1

    def __str__(self) -> str:
        return f"w{self.lanes}" if self.kind == "cpu" else self.kind


# Load and store, or queues of a software NIC of that family; tcp: of mlx5, through the peers' own NICs.
TRANSPORTS = ("p2p", "mlx5", "bnxt_re", "ionic", "tcp")
CPU_TARGETS = [Target("cpu", lanes) for lanes in (1, 32, 64)]
GPU_TARGETS = [pytest.param(Target(kind), marks=pytest.mark.gpu, id=kind) for kind in ("cuda", "hip")]


class Error(NamedTuple):
    """mori::ErrorWord."""

    state: int
    wait: int
    refusal: int
    peer: int
    expected: int
    seen: int


class Ranks:
    """`size` ranks. Offsets are of the heap, `room` bytes of it poisoned for the test to use. `source` and `out` are
    memory of each rank's own, registered with its NIC where it has one."""

    def __init__(
        self,
        target: Target,
        size: int,
        room: int = 1 << 20,
        timeout_s: float = 20,
        *,
        transport: str = "p2p",
        queues: int = 2,
        depth: int = 256,
    ) -> None:
        self.size, self.room, self.timeout_s = size, room, timeout_s
        if target.kind == "cpu":
            self.devices = [_core.open_device("cpu", 0, cpu_lanes=target.lanes) for _ in range(size)]
        else:
            self.devices = [_core.open_device(target.kind, 0)] * size
        self.warp_size: int = self.devices[0].properties.warp_size
        self.heaps = self._connect()
        self.streams = [device.create_stream() for device in self.devices]
        self.errors = [device.allocate_host(64) for device in self.devices]
        self.out = [device.allocate(1 << 16) for device in self.devices]
        self.source = [device.allocate(room) for device in self.devices]
        self.fabrics = self._queues(transport, queues, depth) if transport != "p2p" else []
        for rank in range(size):
            self.fill(rank, POISON)

    def _queues(self, transport: str, queues: int, depth: int) -> list[Any]:
        family = {"tcp": "mlx5", "verbs": "ionic"}.get(transport, transport)
        mover = getattr(_core.Mover, transport if transport in ("tcp", "verbs") else "shm")
        fabrics = []
        for rank, heap in enumerate(self.heaps):
            paths = [_core.Path.direct if pe == rank else _core.Path.queue for pe in range(self.size)]
            fabric = _core.Fabric(
                heap,
                paths,
                family=getattr(_core.NicFamily, family),
                queues_per_peer=queues,
                depth=depth,
                mover=mover,
                device=f"fake{rank}",  # verbs: of the pretended network (tests/ibgda/verbs_ranks.py)
                timeout_ms=int(self.timeout_s * 500),
            )
            fabric.add_region(self.source[rank], self.room)
            fabric.add_region(self.out[rank], 1 << 16)
            fabrics.append(fabric)
        offers = [fabric.offer() for fabric in fabrics]
        for fabric in fabrics:
            fabric.connect(offers)
        return fabrics

    def _connect(self) -> list[Any]:
        granularity = max(device.share_granularity for device in self.devices)
        nbytes = -(-self.room // granularity) * granularity
        heaps = [
            _core.SymmetricHeap(device, rank, self.size, reserve_bytes=2 * nbytes)
            for rank, device in enumerate(self.devices)
        ]
        exports = [heap.grow(nbytes) for heap in heaps]
        for rank, heap in enumerate(heaps):
            for peer, export in enumerate(exports):
                if peer != rank:
                    heap.attach(peer, export.fd, export.ipc, nbytes)
        for heap in heaps:
            heap.commit()
        return heaps

    def address(self, rank: int, offset: int = 0) -> int:
        """Of a byte of the rank's own heap."""
        address: int = self.heaps[rank].address(rank, offset)
        return address

    def fill(self, rank: int, value: int) -> None:
        self.devices[rank].fill(self.address(rank), value, self.room)

    def write(self, rank: int, address: int, values: NDArray[Any]) -> None:
        self.devices[rank].copy(address, np.ascontiguousarray(values).ctypes.data, values.nbytes)

    def read(self, rank: int, address: int, count: int, dtype: Any = np.uint8) -> NDArray[Any]:
        values = np.empty(count, dtype)
        self.devices[rank].copy(values.ctypes.data, address, values.nbytes)
        return values

    def heap(self, rank: int, count: int | None = None) -> NDArray[np.uint8]:
        return self.read(rank, self.address(rank), self.room if count is None else count)

    def results(self, rank: int, groups: int) -> list[list[int]]:
        """uint64[groups][2] of a self-test's `out`."""
        found = self.read(rank, self.out[rank], 2 * groups, np.uint64)
        return [[int(first), int(second)] for first, second in found.reshape(-1, 2)]

    def error(self, rank: int) -> Error:
        return Error(*(int(word) for word in self.read(rank, self.errors[rank].device, 6, np.uint64)))

    def abort(self, rank: int, lost_peer: int) -> None:
        self.write(rank, self.errors[rank].device + 48, np.array([lost_peer + 1], np.uint64))

    def world(self, rank: int) -> bytes:
        """mori::World."""
        ticks = int(self.timeout_s * self.devices[rank].properties.clock_hz)
        bases, fabric = self.heaps[rank].bases_address, 0
        if self.fabrics:
            bases, fabric = self.fabrics[rank].bases, self.fabrics[rank].address
        return struct.pack("<QQQIIQ", bases, self.errors[rank].device, ticks, rank, self.size, fabric)

    def launch(self, rank: int, unit: str, name: str, arguments: bytes, *, blocks: int = 1, warps: int = 1) -> None:
        function = self.devices[rank].function(unit, name, len(arguments))
        shape = _core.LaunchShape(blocks, warps, 16)
        self.devices[rank].launch(function, shape, self.streams[rank], arguments)

    def selftest(
        self,
        test: str,
        by: str = "block",
        *,
        only: Sequence[int] | None = None,
        to: int = 0,
        signals: int = 0,
        source: Callable[[int], int] | None = None,
        nbytes: int = 0,
        stride: int = 0,
        rounds: int = 1,
        groups: int = 1,
        distance: int = 0,
        pes: int = 1,
        blocks: int = 1,
        warps: int = 1,
    ) -> None:
        """Runs shmem_selftest_<test> on all ranks, or `only` some, and waits. `to` and `signals` are heap
        offsets, `source(rank)` an address (by default that of self.source)."""
        ranks = range(self.size) if only is None else only
        for rank in ranks:
            self.devices[rank].fill(self.out[rank], 0, 1 << 16)
        for rank in ranks:
            arguments = self.world(rank) + struct.pack(
                "<QQQQQQQIIII",
                self.address(rank, to),
                self.source[rank] if source is None else source(rank),
                self.address(rank, signals),
                self.out[rank],
                nbytes,
                stride,
                rounds,
                GROUPS[by],
                groups,
                distance,
                pes,
            )
            name = f"shmem_selftest_{test}"
            self.launch(rank, "shmem_selftest", name, arguments, blocks=blocks, warps=warps)
        self.synchronize(ranks)

    def synchronize(self, ranks: Sequence[int] | None = None) -> None:
        for rank in range(self.size) if ranks is None else ranks:
            self.devices[rank].synchronize(self.streams[rank])

    def close(self) -> None:
        """Raises what the software NICs found wrong with entries."""
        violations = [f"rank {rank}: {v}" for rank, f in enumerate(self.fabrics) for v in f.violations()]
        for fabric in self.fabrics:
            fabric.stop()
        for rank, device in enumerate(self.devices):
            device.destroy_stream(self.streams[rank])
            device.free_host(self.errors[rank])
            device.free(self.out[rank])
            device.free(self.source[rank])
        assert not violations, violations
