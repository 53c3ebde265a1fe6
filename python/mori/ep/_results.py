# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What a dispatch returns: the received rows, and the handle by which they find their way back."""

from __future__ import annotations

import dataclasses
import functools
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mori.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from mori.ep._dispatcher import Dispatcher
    from mori.ep._plan import Plan

__all__ = ["Received", "RoutingHandle", "Trimmed"]


class RoutingHandle:
    """Where every token of one dispatch went, and where every received row came from. Owns its own memory: it outlives
    the received rows, may be combined and dispatched again any number of times, and survives `tensors()`."""

    def __init__(
        self,
        owner: Dispatcher,
        data: torch.Tensor,
        topk_ids: torch.Tensor,
        topk_weights: torch.Tensor | None,
        copies: torch.Tensor | None = None,
    ) -> None:
        self._owner = weakref.ref(owner)
        self.map_generation, self.memory_generation = owner.map_generation, owner.memory_generation
        #: uint8 [routing_bytes] on the device; the layout is EpRoutingAddress in src/ops/ep/ep_args.hpp
        self.data = data
        self.topk_ids = topk_ids
        self.topk_weights = topk_weights
        #: Number of the dispatch that asked for these routes, None where only its tensors are known.
        self.root: int | None = None
        #: Of `data` after the dispatch, in debug mode.
        self.digest: int | None = None
        #: What the kernels take for topk_ids: the chosen copies, where experts have several.
        self.copies = topk_ids if copies is None else copies

    @property
    def tokens(self) -> int:
        """Tokens that were dispatched, and that combine returns."""
        return int(self.topk_ids.shape[0])

    @property
    def received(self) -> torch.Tensor:
        """int64 [world_size] on the device: rows received from each rank."""
        return self._part("received", self._owned().ctx.world_size, 8)

    @property
    def sent(self) -> torch.Tensor:
        """int64 [world_size] on the device: rows sent to each rank."""
        return self._part("sent", self._owned().ctx.world_size, 8)

    @property
    def total(self) -> torch.Tensor:
        """int64 [1] on the device: rows received."""
        import torch

        return self.data[8:16].view(torch.int64)

    @property
    def expert_counts(self) -> torch.Tensor:
        """int32 [local experts] on the device: rows of each expert that lives here. Layouts by expert only."""
        return self._part("counts", self._owned().local_experts, 4)

    @property
    def expert_offsets(self) -> torch.Tensor:
        """int32 [local experts + 1] on the device: first slot of each expert that lives here, and where the last one's
        slots end. Layouts by expert only."""
        return self._part("offsets", self._owned().local_experts + 1, 4)

    @property
    def routes(self) -> torch.Tensor:
        """int32 [capacity, topk] on the device: the slot of each selection of a received row, -1 where its expert is
        on another rank. Layouts by expert only."""
        owner = self._owned()
        rows, topk = owner.plan.capacity, owner.plan.topk
        return self._part("routes", rows * topk, 4).view(rows, topk)

    def tensors(self) -> tuple[torch.Tensor, ...]:
        """Copies of what the handle holds, for `from_tensors`: data, topk_ids and, if there are any, topk_weights."""
        held = (self.data, self.topk_ids, self.topk_weights)
        return tuple(t.clone() for t in held if t is not None)

    @classmethod
    def from_tensors(cls, owner: Dispatcher, tensors: tuple[torch.Tensor, ...]) -> RoutingHandle:
        """The handle that `tensors()` was called on, for the same dispatcher or one made with the same arguments."""
        if len(tensors) not in (2, 3):
            raise ConfigError(f"tensors: got {len(tensors)}, tensors() gives 2 or 3")
        owner.check_routing_tensors(*tensors)
        copies = [tensor.clone() for tensor in tensors]
        return owner.handle(copies[0], copies[1], copies[2] if len(copies) == 3 else None)

    def _owned(self) -> Dispatcher:
        owner = self._owner()
        if owner is None:
            raise ConfigError("routing: its dispatcher is gone")
        return owner

    def _part(self, name: str, count: int, width: int) -> torch.Tensor:
        import torch

        owner = self._owned()
        if name in ("counts", "offsets", "routes") and owner.plan.layout == "rank":
            raise ConfigError(f"{name} of experts: layout='rank' does not sort by expert; make it expert or grouped")
        offset = int(getattr(owner._layout.routing, name))
        return self.data[offset : offset + count * width].view(torch.int64 if width == 8 else torch.int32)


@dataclasses.dataclass(frozen=True)
class Trimmed:
    """Received rows in exact shapes: n rows; x and scales have as many slots as are used, or all in layout expert."""

    x: torch.Tensor
    topk_ids: torch.Tensor
    topk_weights: torch.Tensor | None
    scales: torch.Tensor | None
    src: torch.Tensor


class Received:
    """Rows that a dispatch brought here, numbered by source rank, then by token. What lies behind the first `total`
    rows is unspecified.

    x: layout rank: [capacity, hidden], a row each; expert: [local experts, expert_capacity, hidden]; grouped: [slots,
        hidden], groups at expert_offsets. The first expert_counts rows of each expert are valid.
    scales: the same with columns for hidden, or None; with other strides where they are column-major.
    topk_ids: [capacity, topk] in the caller's type: global expert ids, -1 where the expert is on another rank.
    topk_weights: float32 [capacity, topk], or None.
    src: int64 [capacity], source rank << 32 | token.
    counts: int64 [world_size], rows from each rank. total: int64 [1]. Both on the device.
    expert_counts, expert_offsets, routes: see RoutingHandle; layouts by expert only.
    routing: the RoutingHandle for combine.

    The memory is lent: it is reused after the result was combined, `release()`d, or dropped together with its tensors.
    """

    def __init__(
        self,
        owner: Dispatcher,
        memory: torch.Tensor,
        routing: RoutingHandle,
        release: Callable[[], None],
        valid: Callable[[], bool],
    ) -> None:
        self.routing = routing
        self._plan: Plan = owner.plan
        self._layout: Any = owner._layout
        self._experts, self._chooser = owner.local_experts, owner.chooser
        self._memory, self._release, self._valid = memory, release, valid
        self._guarded = owner.debug

    # Views are made when they are asked for: a dispatch costs no more than what its caller uses.

    @functools.cached_property
    def x(self) -> torch.Tensor:
        plan = self._plan
        flat = self._rows(self._layout.receive.rows, plan.slots, plan.row_elements, plan.received_dtype)
        if plan.layout != "expert":
            return flat
        return flat.view(-1, plan.expert_capacity, plan.row_elements)[: self._experts]

    @functools.cached_property
    def scales(self) -> torch.Tensor | None:
        kind = self._plan.received_scales
        if kind is None:
            return None
        columns, dtype = kind
        plan, begin = self._plan, int(self._layout.receive.scales)
        if plan.recipe is None or not plan.recipe.column_major:
            flat = self._rows(begin, plan.slots, columns, dtype)
            return flat.view(-1, plan.expert_capacity, columns)[: self._experts] if plan.layout == "expert" else flat
        where, width = self._layout.scale, dtype.itemsize
        blocks = plan.slots // where.block
        strides = [where.block_bytes // width, where.row_bytes // width, where.column_bytes // width]
        raw = self._bytes(begin, blocks * where.block_bytes).view(dtype)
        shaped = raw.as_strided((blocks, where.block, columns), strides)
        return shaped[: self._experts] if plan.layout == "expert" else shaped[0]

    @functools.cached_property
    def topk_ids(self) -> torch.Tensor:
        return self.copies if self._chooser is None else self._chooser.experts(self.copies)

    @functools.cached_property
    def copies(self) -> torch.Tensor:
        """Like topk_ids, but the number of the copy where experts have several."""
        ids = self.routing.copies
        return self._rows(self._layout.receive.ids, self._plan.capacity, ids.shape[1], ids.dtype)

    @functools.cached_property
    def topk_weights(self) -> torch.Tensor | None:
        weights = self.routing.topk_weights
        if weights is None:
            return None
        return self._rows(self._layout.receive.weights, self._plan.capacity, weights.shape[1], weights.dtype)

    @functools.cached_property
    def src(self) -> torch.Tensor:
        import torch

        return self._rows(self._layout.receive.sources, self._plan.capacity, 1, torch.int64).view(-1)

    @property
    def counts(self) -> torch.Tensor:
        return self.routing.received

    @property
    def total(self) -> torch.Tensor:
        return self.routing.total

    @property
    def expert_counts(self) -> torch.Tensor:
        return self.routing.expert_counts

    @property
    def expert_offsets(self) -> torch.Tensor:
        return self.routing.expert_offsets

    @property
    def routes(self) -> torch.Tensor:
        return self.routing.routes

    def trim(self) -> Trimmed:
        """Views of exactly the valid rows. Waits for the device: not capturable in a graph."""
        n = self._total()
        x, scales = self.x, self.scales
        if self._plan.layout != "expert":
            used = n if self._plan.layout == "rank" else int(self.expert_offsets[-1].item())
            x, scales = x[:used], None if scales is None else scales[:used]
        weights = self.topk_weights
        return Trimmed(x, self.topk_ids[:n], None if weights is None else weights[:n], scales, self.src[:n])

    def by_expert(self) -> list[torch.Tensor]:
        """The valid rows of x of each local expert, as views. Waits for the device. Layouts by expert only."""
        self._total()
        counts = self.expert_counts.tolist()
        if self._plan.layout == "expert":
            return [self.x[index, :count] for index, count in enumerate(counts)]
        starts = self.expert_offsets.tolist()
        return [self.x[start : start + count] for start, count in zip(starts, counts, strict=False)]

    def release(self) -> None:
        """Gives the memory back for a later dispatch, in the order of the stream. Twice is once."""
        self._release()

    def _total(self) -> int:
        n = int(self.total.item())
        if n < 0 or n > self._plan.capacity or int(self.routing.data[:8].view(self.total.dtype).item()) < 0:
            raise ConfigError("the dispatch failed; its context says why")
        return n

    def _rows(self, offset: int, rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
        return self._bytes(int(offset), rows * columns * dtype.itemsize).view(dtype).view(rows, columns)

    def _bytes(self, offset: int, count: int) -> torch.Tensor:
        if self._guarded and not self._valid():
            raise ConfigError("the received rows were given back (combine or release) and may be overwritten")
        return self._memory[offset : offset + count]
