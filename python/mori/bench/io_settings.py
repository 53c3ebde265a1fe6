# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What `mori bench io` is asked for, and the blocks that each transfer moves.

    settings = IoSettings(backend="tcp", block_bytes=(4096,), batch=(1000,))
    case = settings.cases()[0]
    case.turn(seed=1, number=7)         # lists of blocks, the same in both processes

A *case* is an operation, a block size and a batch. In a *turn* one implementation makes a few transfers of a case, each
with blocks of its own, chosen at random so that no two neighbours can be merged (or neighbours, if `contiguous`).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError

__all__ = ["BACKENDS", "MEMORIES", "OPS", "PEERS", "Blocks", "IoCase", "IoSettings", "parse_bytes"]

BACKENDS = ("auto", "shm", "vm", "tcp", "rdma", "p2p", "file")
OPS = ("write", "read")
PEERS = ("nixl", "mooncake", "perftest", "fio")
MEMORIES = ("host", "gpu", "host-gpu", "gpu-host")
MAX_BATCH = 1 << 20
_SUFFIXES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_BIG = 64 << 20  # bytes of a transfer that needs no other one before it to be typical
_MOST_SAMPLES = 32  # transfers of one turn
_TURN_BLOCKS = 256  # about as many blocks a turn, if the batch is smaller
_WORD = 8

Offsets = NDArray[np.uint64]


def parse_bytes(text: str, name: str = "block-size") -> int:
    """ "64K" -> 65536. `name`: of the argument, for the refusal."""
    match = re.fullmatch(r"(\d+)([KMG]?)(I?B)?", text.strip().upper())
    if match is None:
        raise ConfigError(f"{name}={text!r} is not a number of bytes such as 4096, 64K or 1M")
    return int(match[1]) * _SUFFIXES[match[2]]


@dataclasses.dataclass(frozen=True)
class Blocks:
    """One transfer: offsets from the start of the memory at the initiator and at the target, and sizes in bytes."""

    local: Offsets
    remote: Offsets
    sizes: Offsets

    def source(self, op: str) -> Offsets:
        return self.local if op == "write" else self.remote

    def landing(self, op: str) -> Offsets:
        return self.remote if op == "write" else self.local


@dataclasses.dataclass(frozen=True)
class IoCase:
    op: str
    block_bytes: int
    batch: int
    contiguous: bool

    @property
    def bytes(self) -> int:
        return self.block_bytes * self.batch

    @property
    def settles(self) -> int:
        """Transfers before the timed ones of a turn: after somebody else's turn, caches and threads are cold."""
        return 1 if self.bytes <= _BIG else 0

    @property
    def samples(self) -> int:
        return max(1, min(_MOST_SAMPLES, _TURN_BLOCKS // self.batch))

    @property
    def pool_blocks(self) -> int:
        """Blocks of the memory, twice as many as a transfer has, so that it is scattered."""
        least = self.batch if self.bytes > _BIG else 2 * self.batch
        return max(least, (self.samples + self.settles) * self.batch)

    @property
    def pool_bytes(self) -> int:
        return self.pool_blocks * self.block_bytes

    def turn(self, seed: int, number: int) -> list[Blocks]:
        """The transfers of turn `number`, the settling one first. No block is used twice."""
        random = np.random.default_rng((seed, number, self.block_bytes, self.batch))
        count = self.settles + self.samples
        if self.contiguous:
            starts = [random.permutation(self.pool_blocks // self.batch)[:count] * self.batch for _ in range(2)]
            ids = [np.concatenate([np.arange(s, s + self.batch) for s in side]) for side in starts]
        else:
            ids = [random.permutation(self.pool_blocks)[: count * self.batch] for _ in range(2)]
        local, remote = (side.astype(np.uint64) * np.uint64(self.block_bytes) for side in ids)
        sizes = np.full(self.batch, self.block_bytes, np.uint64)
        cuts = range(0, count * self.batch, self.batch)
        return [Blocks(local[at : at + self.batch], remote[at : at + self.batch], sizes) for at in cuts]


@dataclasses.dataclass(frozen=True)
class IoSettings:
    """Arguments of `mori bench io`, refused with ConfigError where they cannot be run."""

    backend: str = "auto"
    ops: tuple[str, ...] = OPS
    block_bytes: tuple[int, ...] = (4 << 10, 64 << 10, 1 << 20)
    batch: tuple[int, ...] = ()  # empty: 1 and 1000, of large blocks as many as make 256 MiB
    contiguous: bool = False
    memory: str = ""  # of the initiator and the target; empty: gpu for p2p, else host
    peers: tuple[str, ...] = ()
    iters: int = 9  # turns of each implementation in each case
    warmup: int = 2
    host: str = ""  # ADDRESS:PORT of a `mori bench io --serve` on another machine
    folder: str = ""  # where the file of --backend file lies; empty: the temporary folder
    trace: str = ""  # file of MoRI's transfers at the initiator, for ui.perfetto.dev
    timeout_s: float = 300.0  # for the whole run
    seed: int = 1

    def __post_init__(self) -> None:
        _one_of("backend", (self.backend,), BACKENDS)
        _one_of("op", self.ops, OPS)
        _one_of("peers", self.peers, PEERS)
        _one_of("memory", (self.memory or "host",), MEMORIES)
        for name, values, least, most in (
            ("block-size", self.block_bytes, _WORD, 1 << 30),
            ("batch", self.batch, 1, MAX_BATCH),
            ("iters", (self.iters,), 1, 100_000),
            ("warmup", (self.warmup,), 0, 100_000),
        ):
            for value in values:
                if not least <= value <= most:
                    raise ConfigError(f"{name}={value} is outside {least} to {most}")
        if not self.ops or not self.block_bytes:
            raise ConfigError("op and block-size name nothing to measure")
        for value in self.block_bytes:
            if value % _WORD:
                raise ConfigError(f"block-size={value} must be a multiple of {_WORD} bytes")
        if not self.timeout_s > 0:
            raise ConfigError(f"timeout={self.timeout_s:g} must be more than 0 seconds")
        if self.memory not in ("", "host") and self.backend not in ("p2p", "auto", "tcp"):
            raise ConfigError(f"memory={self.memory!r} needs backend auto, p2p or tcp, not {self.backend!r}")
        if self.host and self.backend in ("shm", "vm", "p2p", "file"):
            raise ConfigError(f"backend={self.backend!r} works within one machine; give auto, tcp or rdma with --host")
        largest = max(case.pool_bytes for case in self.cases())
        if largest > 16 << 30:
            raise ConfigError(f"the largest case needs {largest >> 20} MiB in each process; 16384 MiB are allowed")

    @property
    def memories(self) -> tuple[str, str]:
        """Where the initiator's and the target's memory lies: host or gpu."""
        name = self.memory or ("gpu" if self.backend == "p2p" else "host")
        first, _, second = name.partition("-")
        return first, second or first

    def cases(self) -> list[IoCase]:
        return [
            IoCase(op, size, batch, self.contiguous)
            for size in self.block_bytes
            for batch in self.batch or _default_batches(size)
            for op in self.ops
        ]

    @property
    def pool_bytes(self) -> int:
        return max(case.pool_bytes for case in self.cases())


def _default_batches(block_bytes: int) -> tuple[int, ...]:
    return tuple(dict.fromkeys((1, max(1, min(1000, (256 << 20) // block_bytes)))))


def _one_of(name: str, values: Iterable[str], allowed: tuple[str, ...]) -> None:
    for value in values:
        if value not in allowed:
            raise ConfigError(f"{name}={value!r} is not one of {', '.join(allowed)}")
