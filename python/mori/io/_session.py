# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""A pair of memories, and what is posted between them. The calls of the hot path are the extension's own."""

from __future__ import annotations

import dataclasses
from typing import Any

from mori._core import io as _io

from ..errors import ConfigError
from ._descriptors import MemoryDesc

__all__ = ["Explanation", "IOEngineSession", "Route"]


@dataclasses.dataclass(frozen=True)
class Route:
    """What one backend says about a pair of memories: its estimate, or the reason why it cannot.

    `failures`: how often transfers had to leave it; `avoided`: it failed of late, so others go first for a while.
    """

    backend: str
    possible: bool
    latency_us: float
    bytes_per_second: float
    reason: str
    failures: int
    avoided: bool = False

    def cost_us(self, size: int) -> float:
        """Estimate for a transfer of `size` bytes."""
        return self.latency_us + (size / self.bytes_per_second * 1e6 if self.bytes_per_second > 0 else 0)


@dataclasses.dataclass(frozen=True)
class Explanation:
    """Who carries the bytes between two memories (`chosen`, empty: nobody can), and what each backend said."""

    chosen: str
    routes: tuple[Route, ...]
    missing: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        lines = [f"carried by {self.chosen or 'nobody'}"]
        for r in self.routes:
            cost = f"{r.latency_us:g} us + {r.bytes_per_second / 1e9:.3g} GB/s"
            said = ", ".join(words for words in (cost, r.reason) if words) if r.possible else r.reason
            lines.append(f"  {r.backend}: {said}" + (f" (failed {r.failures} times)" if r.failures else ""))
        lines += [f"  {name}: not here: {why}" for name, why in self.missing]
        return "\n".join(lines)


class IOEngineSession(_io.Session):  # type: ignore[misc]
    """Transfers between a local and a remote memory. Made by `IOEngine.create_session()`.

    `write(local_offset, remote_offset, size, uid)`, `read(...)` and `batch_write(local_offsets, remote_offsets, sizes,
    uid)`, `batch_read(...)` return one `TransferStatus` each. Offsets are bytes from the start of the memories; for
    batches they are one-dimensional integer arrays, lists of ints, or `Strided(start, stride, count)`, and `sizes` may
    be one int for all. Keyword arguments: `deadline_s` (0 = none) and `notify` (bytes for the peer once all is in
    place). What is wrong with the numbers becomes a failed status; wrong types raise ConfigError.
    """

    def __init__(self, core: Any, local: MemoryDesc, remote: MemoryDesc, missing: Any) -> None:
        super().__init__(core)
        self.local = local
        self.remote = remote
        self._missing = missing

    def prepare(self, op: str, local_offsets: Any, remote_offsets: Any, sizes: Any) -> Any:
        """A `PreparedTransfer`: checked, sorted and merged once; `post(uid, deadline_s=, notify=)` any number of times.

        `op` is "read" or "write". Raises ConfigError for the offsets.
        """
        if op not in ("read", "write"):
            raise ConfigError(f'op={op!r}; it is "read" or "write"')
        return self._prepare(op == "write", local_offsets, remote_offsets, sizes)

    def alive(self, timeout_s: float = 1.0) -> bool:
        """Whether the peer answers within `timeout_s`: it is asked each time."""
        return bool(self._alive(positive(timeout_s)))

    def open(self, timeout_s: float = 5.0) -> None:
        """Connects and finds the route now rather than at the first transfer. Raises why it cannot."""
        self._open(positive(timeout_s))

    def explain(self, timeout_s: float = 5.0, *, size: int = 1 << 20) -> Explanation:
        """Which backend carries a transfer of `size` bytes, and what the others say. Asks all of them."""
        routes = tuple(Route(*row) for row in self._explain(positive(timeout_s)))
        able = [r for r in routes if r.possible]
        chosen = min(able, key=lambda r: (r.avoided, r.cost_us(size))).backend if able else ""
        return Explanation(chosen, routes, tuple(self._missing()))


def positive(timeout_s: float) -> float:
    if not timeout_s > 0:
        raise ConfigError(f"timeout_s={timeout_s} must be above 0")
    return float(timeout_s)
