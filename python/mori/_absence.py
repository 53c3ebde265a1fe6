# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Going on without ranks that died or did not come, and taking them in again (docs/absence.md)."""

from __future__ import annotations

import contextlib
import logging
import weakref
from typing import TYPE_CHECKING, Protocol

from mori.errors import ConfigError, MoriError, PeerLost, TimeoutError

if TYPE_CHECKING:
    from mori.context import Context

_log = logging.getLogger(__name__)


class Product(Protocol):
    """What can turn to other memory: it has two halves, by number."""

    def make_new(self, half: int, generation: int) -> None:
        """Makes this rank's part of a half as at construction. Nobody writes to it meanwhile."""

    def turn_to(self, half: int, left_out: frozenset[int]) -> None:
        """From the next call on, this half and without these ranks."""


class Absence:
    """Of one context. `left_out` are the ranks that calls of its products go without."""

    def __init__(self, context: Context) -> None:
        self._context = weakref.ref(context)
        self._products: weakref.WeakSet[Product] = weakref.WeakSet()
        self.left_out: frozenset[int] = frozenset()
        self._late: frozenset[int] = frozenset()  # who may still write into the half that is not in use
        self._turns = self._generation = 0  # halves turned to; how often memory was made new

    @property
    def half(self) -> int:
        """Which is in use."""
        return self._turns % 2

    def enlist(self, product: Product) -> None:
        """From now on it turns with the others. Collective, by its construction."""
        self._products.add(product)

    def leave_out(self, failure: MoriError | None, timeout: float) -> None:
        ctx = self._ctx()
        if self._late:
            raise ConfigError(
                f"ranks {sorted(self._late)}, left out before, may still write to the memory that another turn needs: "
                "ctx.readmit() when they are back, or ctx.recover()"
            ) from failure
        self._end_calls(ctx)
        for product in self._products:
            product.make_new(1 - self.half, self._generation + 1)
        named = {failure.peer} if isinstance(failure, (PeerLost, TimeoutError)) and failure.peer is not None else set()
        here = ctx.mesh.roll_call(timeout=timeout, without=named)
        self._turns += 1
        self._generation += 1
        gone = frozenset(range(ctx.world_size)) - frozenset(here)
        # A dead process writes nothing; what it had given a GPU to do may go on for a moment.
        self._late = gone - ctx.mesh.lost() if ctx.synchronous else gone
        self._turn(ctx, gone)
        _log.info("rank %d goes on without ranks %s", ctx.rank, sorted(gone))

    def readmit(self, timeout: float) -> None:
        ctx = self._ctx()
        self._end_calls(ctx)
        mine = self._turns.to_bytes(8, "little") + self._generation.to_bytes(8, "little")
        told = ctx.mesh.reunite(mine, timeout=timeout)
        self._turns = max(int.from_bytes(part[:8], "little") for part in told)
        self._generation = 1 + max(int.from_bytes(part[8:], "little") for part in told)
        for product in self._products:
            product.make_new(self.half, self._generation)
        ctx.mesh.barrier("ctx.readmit", timeout=timeout)
        self._late = frozenset()
        self._turn(ctx, frozenset())

    def _turn(self, ctx: Context, gone: frozenset[int]) -> None:
        self.left_out = gone
        ctx.forget_failure()
        for product in self._products:
            product.turn_to(self.half, gone)

    def _end_calls(self, ctx: Context) -> None:
        with contextlib.suppress(MoriError):
            ctx.core_device.synchronize(ctx.stream())  # failed waits leave at once

    def _ctx(self) -> Context:
        context = self._context()
        if context is None or context.closed:
            raise ConfigError("the context is closed")
        return context
