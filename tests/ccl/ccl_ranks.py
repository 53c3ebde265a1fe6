# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Ranks with a communicator, and tensors whose surroundings are guarded."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from mori.testing import run_ranks

import mori

DTYPES = (
    *(torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.int32, torch.int64),
    *(torch.float8_e4m3fn, torch.float8_e5m2),
)
FLOATS = DTYPES[:4]
OPS = ("sum", "avg", "min", "max", "prod")
GUARD = 0xC5


def algorithms(dtype: torch.dtype) -> tuple[str, ...]:
    return ("auto", "one_shot", "two_shot", *(("ll",) if dtype.itemsize <= 4 else ()))


@contextlib.contextmanager
def communicator(rank: int, size: int, uid: bytes, timeout: float = 30, **options: Any) -> Iterator[Any]:
    """Small chunks, so that messages take many steps."""
    with mori.init(uid=uid, rank=rank, world_size=size, device="cpu", timeout=timeout, heap_bytes=8 << 20) as ctx:
        yield mori.ccl.Communicator(ctx, **({"chunk_bytes": 4096, "blocks": 2} | options))


def each(work: Callable[..., Any], size: int, *args: Any, lanes: int = 1, mode: str = "thread", **options: Any) -> Any:
    """`work(comm, *args)` on all ranks. Lanes other than 1 run as fibers, several blocks and warps of them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MORI_CPU_LANES", str(lanes))
        return run_ranks(_with, size, work, args, options, mode=mode, timeout=110)


def _with(rank: int, size: int, uid: bytes, work: Any, args: Any, options: Any) -> Any:
    with communicator(rank, size, uid, **options) as comm:
        return work(comm, *args)


class Guarded:
    """A tensor of `count` elements that begins `skew` elements behind a boundary, in memory that is looked after."""

    def __init__(self, count: int, dtype: torch.dtype, skew: int = 0) -> None:
        self.skew, self.end = 64 + skew * dtype.itemsize, 64 + (skew + count) * dtype.itemsize
        self.memory = torch.full((self.end + 64,), GUARD, dtype=torch.uint8)
        self.tensor = self.memory[self.skew : self.end].view(dtype)

    def hurt(self) -> bool:
        around = torch.cat([self.memory[: self.skew], self.memory[self.end :]])
        return bool((around != GUARD).any())


def small_integers(rank: int, count: int, dtype: torch.dtype, seed: int = 0, most: int = 3) -> torch.Tensor:
    """Values whose sums, of up to 16 ranks, are exact in every dtype."""
    generator = torch.Generator().manual_seed(1000 * seed + rank)
    return torch.randint(-most, most + 1, (count,), generator=generator).to(dtype)


def expected(values: list[torch.Tensor], op: str) -> torch.Tensor:
    """In fp64, or exactly in int64; rounded once."""
    dtype = values[0].dtype
    wide = torch.float64 if dtype.is_floating_point else torch.int64
    rows = torch.stack([value.to(wide) for value in values])
    total = {"min": torch.amin, "max": torch.amax, "prod": torch.prod}.get(op, torch.sum)(rows, 0)
    if op == "avg":
        total = total / len(values) if wide is torch.float64 else torch.div(total, len(values), rounding_mode="trunc")
    return total.to(dtype)


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and torch.equal(a.view(torch.uint8), b.view(torch.uint8))
