# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What ranks tell each other about their heaps, and how they compare it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from .errors import CapacityError, ConfigError

__all__ = ["Call", "Chunk", "Plan", "require_none", "require_same", "round_up"]


class Plan(msgspec.Struct, array_like=True):
    """What a rank brings when heaps are made."""

    heap_bytes: int
    debug: bool
    granularity: int
    can_map: bool
    reserve_bytes: int


class Call(msgspec.Struct, array_like=True):
    """What a rank brings to a collective call. All but `released` must be equal on all ranks."""

    sequence: int
    purpose: str
    nbytes: int
    alignment: int
    fill: int | None
    released: list[int]  # offsets whose last owner on this rank has gone

    def describe(self) -> str:
        fill = "" if self.fill is None else f", filled with {self.fill}"
        size = f"{self.nbytes} bytes aligned to {self.alignment}"
        return f"call {self.sequence} for '{self.purpose}' of {size}{fill}"


class Chunk(msgspec.Struct, array_like=True):
    """A rank's part of a growth: what a peer needs to map it, or why there is none."""

    nbytes: int
    ipc: bytes = b""
    failure: str = ""


def round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def require_same(what: str, values: Sequence[object]) -> None:
    """ConfigError naming the ranks whose value is not rank 0's."""
    differing = [rank for rank, value in enumerate(values) if value != values[0]]
    if differing:
        seen = "; ".join(f"rank {rank} has {values[rank]}" for rank in differing[:4])
        more = f"; and {len(differing) - 4} more ranks differ" if len(differing) > 4 else ""
        raise ConfigError(f"{what} differs between ranks: rank 0 has {values[0]}; {seen}{more}")


def require_none(failures: Sequence[str], nbytes: int) -> None:
    """CapacityError with the reasons why ranks could not grow, each said once. "" is no failure."""
    reasons = []
    for reason in dict.fromkeys(filter(None, failures)):
        ranks = [str(rank) for rank, failure in enumerate(failures) if failure == reason]
        reasons.append(f"rank{'s' if len(ranks) > 1 else ''} {', '.join(ranks)}: {reason}")
    if reasons:
        raise CapacityError(f"the symmetric heap cannot grow by {nbytes} bytes: {'; '.join(reasons)}")
