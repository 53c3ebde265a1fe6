# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What `mori bench ccl` is asked for, the cases that follow from it, and what is counted: nccl-tests' definitions.

`bytes` is the larger of a rank's two sides: what goes into all_reduce, reduce_scatter, broadcast, reduce and
all_to_all, and what comes out of all_gather. algbw = bytes / time; busbw = algbw * factor, what a link carries of it in
an algorithm without waste. Nothing here needs torch.
"""

from __future__ import annotations

import dataclasses

from ..errors import ConfigError
from .settings import MAX_RANKS, one_of, within

__all__ = ["DTYPES", "OPS", "PEERS", "CclCase", "CclSettings"]


@dataclasses.dataclass(frozen=True)
class _Op:
    """How busbw follows from algbw."""

    times: float
    less: int

    def factor(self, ranks: int) -> float:
        return self.times * (ranks - self.less) / ranks


OPS = {
    "all_reduce": _Op(2, 1),
    "all_gather": _Op(1, 1),
    "reduce_scatter": _Op(1, 1),
    "all_to_all": _Op(1, 1),
    "broadcast": _Op(1, 0),
    "reduce": _Op(1, 0),
}
ALGORITHMS = ("auto", "one_shot", "two_shot", "ll")
PEERS = ("gloo", "mpi")
DTYPES = {"fp32": 4, "bf16": 2, "int32": 4}
MAX_BYTES = 1 << 32
_PACKETS = 1 << 16  # more by packets is a matter of bandwidth, which they waste
_TRAFFIC = 256 << 20  # bytes of all timed calls of a case, but for the fewest


@dataclasses.dataclass(frozen=True)
class CclCase:
    op: str
    bytes: int
    algorithm: str = "auto"

    def elements(self, dtype: str) -> int:
        return self.bytes // DTYPES[dtype]


@dataclasses.dataclass(frozen=True)
class CclSettings:
    """Arguments of `mori bench ccl`, refused with ConfigError where they cannot be run."""

    ranks: int = 2
    device: str = "cpu"
    ops: tuple[str, ...] = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
    dtype: str = "fp32"
    algorithms: tuple[str, ...] = ("auto",)  # of all_reduce
    sizes: tuple[int, ...] = (4 << 10, 64 << 10, 1 << 20, 16 << 20)
    peers: tuple[str, ...] = ()
    iters: int = 50  # most calls of a case that are timed; of large ones fewer
    seed: int = 1
    timeout_s: float = 300.0  # for the whole run

    def __post_init__(self) -> None:
        one_of("device", self.device, ("cpu",))
        within("ranks", self.ranks, 2, MAX_RANKS)
        within("iters", self.iters, 4, 100_000)
        one_of("dtype", self.dtype, tuple(DTYPES))
        for name, values, allowed in (
            ("op", self.ops, tuple(OPS)),
            ("algo", self.algorithms, ALGORITHMS),
            ("peers", self.peers, PEERS),
        ):
            for value in values:
                one_of(name, value, allowed)
        if not self.ops or not self.algorithms or not self.sizes:
            raise ConfigError("op, algo and sizes must each name something to measure")
        if self.dtype == "bf16" and "mpi" in self.peers:
            raise ConfigError("peers=mpi: MPI has no bf16; give dtype=fp32 or int32")
        unit = self.ranks * DTYPES[self.dtype]
        for size in self.sizes:
            within("sizes", size, unit, MAX_BYTES)
            if size % unit:
                raise ConfigError(f"sizes={size} is not a multiple of {unit}, an element of {self.dtype} for each rank")
        if not self.timeout_s > 0:
            raise ConfigError(f"timeout={self.timeout_s:g} must be more than 0 seconds")

    def cases(self) -> list[CclCase]:
        """In the order in which they are measured."""
        return [
            CclCase(op, size, algorithm)
            for op in self.ops
            for size in self.sizes
            for algorithm in (self.algorithms if op == "all_reduce" else ("auto",))
            if algorithm != "ll" or size <= _PACKETS
        ]

    def calls(self, case: CclCase) -> int:
        return max(4, min(self.iters, _TRAFFIC // case.bytes))
