# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The kernels of `mori bench shmem` (data/shmem/*.cpp), compiled when the bench starts, and one rank's memory for them.

place = Place(ctx, room=1 << 20)
ticks = place.launch("rma", "bench_put", case, source=..., target=..., peer=1)
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..shmem.structs import Team, World
from .shmem_settings import SCOPES, ShmemCase

if TYPE_CHECKING:
    import torch

    from .. import Context

__all__ = ["SOURCES", "BenchArgs", "Place"]

SOURCES = Path(__file__).with_name("data") / "shmem"
_WORKSPACE_BYTES = 1 << 20  # of the team of all ranks
_NUMBERED = ("latency", "collectives")  # units whose rounds raise signals
_MOST_LANES = 1024 * 512  # groups of one launch, at most


#: By the kind of case that launches them (collectives copy, too, for their limit).
_KERNELS: dict[str, dict[str, tuple[str, ...]]] = {
    "bandwidth": {"rma": ("bench_put", "bench_get", "bench_copy")},
    "latency": {"latency": ("bench_p", "bench_put_signal", "bench_bare")},
    "round_trip": {"rma": ("bench_put_quiet",), "latency": ("bench_bare",)},
    "rate": {"rma": ("bench_put_rate", "bench_bare_put")},
    "atomic": {"atomics": ("bench_atomic_add", "bench_atomic_fetch_add", "bench_bare_add")},
    "meeting": {"collectives": ("bench_sync", "bench_barrier", "bench_exchange")},
    "collective": {
        "collectives": ("bench_broadcast", "bench_fcollect", "bench_alltoall", "bench_reduce", "bench_exchange"),
        "rma": ("bench_copy",),
    },
}
#: Limits load and store into the peer's memory, whatever carries the bytes otherwise.
_LIMITS = ("bench_copy", "bench_bare", "bench_bare_add", "bench_bare_put", "bench_exchange")


class BenchArgs(ctypes.Structure):
    """mori::ShmemBenchArgs of data/shmem/bench.hpp."""

    _fields_ = [
        ("world", World),
        ("team", Team),
        ("target", ctypes.c_uint64),
        ("source", ctypes.c_uint64),
        ("signals", ctypes.c_uint64),
        ("times", ctypes.c_uint64),
        ("wrong", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        ("first_round", ctypes.c_uint64),
        ("rounds", ctypes.c_uint32),
        ("samples", ctypes.c_uint32),
        ("peer", ctypes.c_uint32),
        ("scope", ctypes.c_uint32),
        ("check", ctypes.c_uint32),
        ("queues", ctypes.c_uint32),
    ]


class Place:
    """One rank's memory and kernels. Collective to make; all ranks make the same launches that wait for each other."""

    def __init__(self, ctx: Context, room: int) -> None:
        import torch

        self.ctx, self.room = ctx, room
        n = ctx.world_size
        #: Symmetric: where bytes land; words; a payload and its signal side by side.
        self.landing = ctx.empty((room,), torch.uint8, fill=0)
        self.signals = ctx.empty((n + 2,), torch.int64, fill=0)
        self.pair = ctx.empty((2,), torch.int64, fill=0)
        self._team_signals = ctx.empty((n,), torch.int64, fill=0)
        self._workspace = ctx.empty((_WORKSPACE_BYTES,), torch.uint8, fill=0)
        #: Private.
        self.source = torch.zeros(room, dtype=torch.uint8, device=ctx.device)
        if ctx.heap.fabric is not None:  # what a NIC reads and writes is registered
            ctx.heap.fabric.add_region(self.source.data_ptr(), room)
        groups = _MOST_LANES if ctx.device.type != "cpu" else 1024
        self._times = torch.zeros(2 * groups, dtype=torch.int64, device=ctx.device)
        self._wrong = torch.zeros(1, dtype=torch.int64, device=ctx.device)
        self._team = Team(
            signals=ctx.heap.offset(self._team_signals), workspace=ctx.heap.offset(self._workspace),
            workspace_bytes=_WORKSPACE_BYTES, start=0, stride=1, size=n, index=ctx.rank,
        )  # fmt: skip
        self._modules: dict[str, Any] = {}
        self._round = 0
        self._ns_per_tick = 1e9 / ctx.core_device.properties.clock_hz
        ctx.barrier()

    def load(self, kinds: set[str]) -> None:
        """Collective. Compiles and loads what these kinds of cases launch: loading may wait for a GPU, on which another
        rank's kernel would be waiting for this rank."""
        for kind in sorted(kinds):
            for unit, kernels in _KERNELS[kind].items():
                for kernel in kernels:
                    self._module(unit).kernel(kernel)
        self.ctx.barrier(timeout=600)

    def advance(self, rounds: int) -> None:
        """For a rank that takes no part in a launch: signals have grown all the same."""
        self._round += rounds

    def launch(
        self,
        unit: str,
        kernel: str,
        case: ShmemCase,
        *,
        rounds: int,
        samples: int = 1,
        nbytes: int = 0,
        peer: int = 0,
        target: torch.Tensor | None = None,
        source: torch.Tensor | None = None,
        signals: torch.Tensor | None = None,
        in_shared: bool = False,
        check: bool = False,
    ) -> None:
        """Runs a kernel once and waits for it. Raises what it recorded."""
        module = self._module(unit)
        signals = self.signals if signals is None else signals
        world = self.ctx.world
        if kernel in _LIMITS:
            world.bases, world.fabric = self.ctx.heap.bases_address, 0
        arguments = BenchArgs(
            world=world, team=self._team,
            target=(self.landing if target is None else target).data_ptr(),
            source=0 if in_shared else (self.source if source is None else source).data_ptr(),
            signals=signals.data_ptr(), times=self._times.data_ptr(), wrong=self._wrong.data_ptr(), bytes=nbytes,
            first_round=self._round, rounds=rounds, samples=samples, peer=peer,
            scope=SCOPES.index(case.scope), check=check, queues=case.queues,
        )  # fmt: skip
        if unit in _NUMBERED:
            self._round += rounds * samples
        module.kernel(kernel).launch(
            arguments, blocks=case.blocks, warps=case.warps, shared_bytes=16, stream=self.ctx.stream()
        )
        self.ctx.synchronize()

    def samples_ns(self, count: int) -> NDArray[np.float64]:
        """What the last launch noted of each sample but the first, which began before the other ranks were there."""
        return np.asarray(self._times[1:count].cpu().numpy() * self._ns_per_tick)

    def span_ns(self, groups: int) -> float:
        """From the first group's start to the last one's end."""
        spans = self._times[: 2 * groups].cpu().numpy().reshape(-1, 2)
        return float((spans[:, 1].max() - spans[:, 0].min()) * self._ns_per_tick)

    def wrong(self) -> int:
        """Words that kernels found wrong so far."""
        return int(self._wrong.item())

    def _module(self, unit: str) -> Any:
        if unit not in self._modules:
            import mori

            self._modules[unit] = mori.compile_kernel(SOURCES / f"{unit}.cpp", device=self.ctx)
        return self._modules[unit]
