# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What `mori bench shmem` is asked for, and the cases that follow from it.

    settings = ShmemSettings(ops=("put", "put_signal"), sizes=(8, 1 << 20))
    for case in settings.cases(): ...

A *case* is an operation with its size, its scope and the shape of its launch. Kinds of operations are timed
in different ways: OPS says which is which. Nothing here needs torch.
"""

from __future__ import annotations

import dataclasses

from ..errors import ConfigError
from .settings import DEVICES, MAX_RANKS, one_of, within

__all__ = ["OPS", "PEERS", "QUEUES", "QUEUE_OPS", "SCOPES", "ShmemCase", "ShmemSettings"]

#: What --op may name, and how it is measured.
OPS = {
    "put": "bandwidth",
    "get": "bandwidth",
    "put_signal": "latency",
    "p": "latency",
    "atomic": "atomic",
    "barrier": "meeting",
    "sync": "meeting",
    "broadcast": "collective",
    "fcollect": "collective",
    "alltoall": "collective",
    "reduce": "collective",
}
#: And over queues of a NIC.
QUEUE_OPS = {"put_quiet": "round_trip", "put_rate": "rate"}
SCOPES = ("thread", "warp", "block")
PEERS = ("nvshmem",)
TRANSPORTS = ("p2p", "ibgda")
QUEUES = 8  # to each peer, over which put_rate goes
MAX_BLOCKS = 512
MAX_BYTES = 1 << 30
WORD = 8
_LONGEST_PAYLOAD = 64 << 10  # of a signal's latency: more is a matter of bandwidth
_LONGEST_COLLECTIVE = 1 << 20  # of one group: more is a matter of blocks
_WARPS = {"cpu": 1, "cuda": 32}  # of a block that moves bytes
_FEW_WARPS = {"cpu": 1, "cuda": 8}  # of a block in which lanes meet for each operation
_TRAFFIC = {"cpu": 16 << 20, "cuda": 256 << 20}  # bytes of a sample


@dataclasses.dataclass(frozen=True)
class ShmemCase:
    op: str  # OPS, but atomic is atomic_add or atomic_fetch_add; put_signal may be put_signal_paired
    kind: str
    bytes: int  # of one operation; 0 where there is no payload
    scope: str = "thread"
    blocks: int = 1
    warps: int = 1
    rounds: int = 1  # operations of a sample
    queues: int = 1  # of put_rate

    @property
    def label(self) -> str:
        return f"{self.op} of {self.bytes} bytes by {self.scope}, {self.blocks} blocks"


@dataclasses.dataclass(frozen=True)
class ShmemSettings:
    """Arguments of `mori bench shmem`, refused with ConfigError where they cannot be run."""

    ranks: int = 2
    device: str = "cpu"
    ops: tuple[str, ...] = tuple(OPS)
    scopes: tuple[str, ...] = ()  # empty: block on a CPU, where all are alike; else all
    blocks: tuple[int, ...] = ()  # empty: 1 on a CPU; 1, 4, 16, 32 on a GPU
    sizes: tuple[int, ...] = ()  # bytes; empty: 8, 1K, 64K, 1M, and 8M on a GPU
    transport: str = "p2p"
    peers: tuple[str, ...] = ()
    iters: int = 20  # samples of each case
    seed: int = 1
    timeout_s: float = 300.0  # for the whole run

    def __post_init__(self) -> None:
        one_of("device", self.device, DEVICES)
        within("ranks", self.ranks, 2, MAX_RANKS)
        within("iters", self.iters, 4, 100_000)
        one_of("transport", self.transport, TRANSPORTS)
        if self.over_queues and self.on_gpu:
            raise ConfigError(
                f"transport=ibgda with device={self.device}: the software NIC moves host memory only; use device=cpu"
            )
        known = {**OPS, **QUEUE_OPS} if self.over_queues else OPS
        if not self.ops:
            raise ConfigError(f"op='' names nothing to measure; allowed are {', '.join(known)}")
        for op in self.ops:
            one_of("op", op, tuple(known))
        for scope in self.scopes:
            one_of("scope", scope, SCOPES)
        for blocks in self.blocks:
            within("blocks", blocks, 1, MAX_BLOCKS)
        for size in self.sizes:
            within("sizes", size, WORD, MAX_BYTES)
            if size % WORD:
                raise ConfigError(f"sizes={size} is not a multiple of {WORD} bytes")
        for peer in self.peers:
            one_of("peers", peer, PEERS)
        if self.peers and (self.device != "cuda" or self.ranks != 2):
            raise ConfigError(f"peers={self.peers[0]} needs device=cuda and ranks=2")
        if not self.timeout_s > 0:
            raise ConfigError(f"timeout={self.timeout_s:g} must be more than 0 seconds")

    @property
    def on_gpu(self) -> bool:
        return self.device != "cpu"

    @property
    def over_queues(self) -> bool:
        return self.transport == "ibgda"

    def cases(self) -> list[ShmemCase]:
        """In the order in which they are measured."""
        scopes = self.scopes or (SCOPES if self.on_gpu else ("block",))
        sizes = self.sizes or (8, 1 << 10, 64 << 10, 1 << 20, *((8 << 20,) if self.on_gpu else ()))
        blocks = self.blocks or ((1, 4, 16, 32) if self.on_gpu else (1,))
        makers = {
            "bandwidth": lambda op: self._bandwidth(op, scopes, sizes, blocks),
            "latency": lambda op: self._latency(op, scopes, sizes),
            "atomic": lambda op: self._atomic(blocks),
            "round_trip": lambda op: [ShmemCase(op, "round_trip", WORD, rounds=20)],
            "rate": lambda op: [ShmemCase(op, "rate", WORD, rounds=2000, queues=count) for count in (1, QUEUES)],
            "meeting": lambda op: [self._met(op, "meeting", 0, scope) for scope in scopes],
            "collective": lambda op: [
                self._met(op, "collective", size, scope)
                for scope in scopes
                for size in sizes
                if size <= _LONGEST_COLLECTIVE and scope != "thread"
            ],
        }
        return [case for op in self.ops for case in makers[{**OPS, **QUEUE_OPS}[op]](op)]

    @property
    def _alone(self) -> bool:
        """Whether a CPU's core has nobody else to serve between two operations: then more of them are a sample."""
        return self.on_gpu or (self.ranks <= 2 and not self.over_queues)

    def _rounds(self, traffic: int, most: int, least: int = 2) -> int:
        return max(least, min(most, _TRAFFIC[self.device] // max(1, traffic)))

    def _bandwidth(
        self, op: str, scopes: tuple[str, ...], sizes: tuple[int, ...], blocks: tuple[int, ...]
    ) -> list[ShmemCase]:
        warps = _WARPS[self.device]
        return [
            ShmemCase(op, "bandwidth", size, scope, count, warps, self._rounds(size, 500, 8))
            for scope in scopes
            for size in sizes
            for count in blocks
            if count == min(blocks) or size >= count * 1024  # less is nothing to share
        ]

    def _latency(self, op: str, scopes: tuple[str, ...], sizes: tuple[int, ...]) -> list[ShmemCase]:
        hops = 200 if self._alone else 20
        if op == "p":
            return [ShmemCase("p", "latency", WORD, "thread", 1, 1, hops)]
        found = [ShmemCase("put_signal_paired", "latency", WORD, "thread", 1, 1, hops)] if WORD in sizes else []
        for scope in scopes:
            for size in sizes:
                if size <= _LONGEST_PAYLOAD:
                    warps = _FEW_WARPS[self.device] if scope == "block" else 1
                    found.append(ShmemCase(op, "latency", size, scope, 1, warps, hops))
        return found

    def _atomic(self, blocks: tuple[int, ...]) -> list[ShmemCase]:
        shapes = [(1, 1)] + ([(max(blocks), _WARPS[self.device])] if self.on_gpu else [])
        rounds = 100 if self.over_queues else 1000
        return [
            ShmemCase(name, "atomic", WORD, "thread", count, warps, rounds if count == 1 else 50)
            for name in ("atomic_add", "atomic_fetch_add")
            for count, warps in shapes
        ]

    def _met(self, op: str, kind: str, size: int, scope: str) -> ShmemCase:
        warps = _FEW_WARPS[self.device] if scope == "block" else 1
        if kind == "collective" and scope == "block":
            warps = _WARPS[self.device]
        most = 100 if self._alone else 10
        return ShmemCase(op, kind, size, scope, 1, warps, self._rounds(size * self.ranks, most))
