# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""A dispatcher's memory, and what works on it. With on_loss="mask" there are two: one is in use, the other is turned to
when a rank is left out (docs/absence.md)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from mori import _core
from mori.ep._debug import Inspector
from mori.ep._leases import Leases

if TYPE_CHECKING:
    from mori.context import Context
    from mori.ep._plan import Plan

__all__ = ["Half", "make_half"]

_CALLS_OF_A_GENERATION = 1 << 40  # epochs of one generation of the memory: no handle fits into two


@dataclasses.dataclass(frozen=True)
class Half:
    memory: _core.Allocation
    leases: Leases
    inspector: Inspector | None
    core: Any  # _core.EpDispatcher

    def make_new(self, generation: int) -> None:
        """As at construction, but for epochs, which no generation has in common with another."""
        start = generation * _CALLS_OF_A_GENERATION
        self.core.start_at(start, start)


def make_half(
    ctx: Context, plan: Plan, layout: Any, config: Any, *, debug: bool, live_results: int, blocks: int, warps: int
) -> Half:
    """Collective; usable after a barrier."""
    # The signals must be 0 before a peer can raise them; only the head of the memory holds any.
    memory = ctx.heap.allocate(layout.heap_bytes, purpose="mori.ep.Dispatcher")
    ctx.heap.core.fill(memory.offset, 0, layout.signal_bytes)
    leases = Leases(ctx, memory, layout, live_results)
    inspector = Inspector(ctx, plan, layout, memory, leases) if debug else None
    core = _core.EpDispatcher(
        ctx.core,
        config,
        heap_offset=memory.offset,
        expert_rank=list(plan.placement.copy_rank),
        blocks=blocks or ctx.default_blocks,
        warps=warps,
    )
    return Half(memory, leases, inspector, core)
