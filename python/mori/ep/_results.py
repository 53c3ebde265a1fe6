# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What a dispatch returns: the received rows, and the handle by which they find their way back."""

from __future__ import annotations

import dataclasses
import functools
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from mori.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from mori.ep._dispatcher import Dispatcher

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
    ) -> None:
        self._owner = weakref.ref(owner)
        self.data = (
            data  # uint8 [routing_bytes] on the device; the layout is EpRoutingAddress in src/ops/ep/ep_args.hpp
        )
        self.topk_ids = topk_ids
        self.topk_weights = topk_weights

    @property
    def tokens(self) -> int:
        """Tokens that were dispatched, and that combine returns."""
        return int(self.topk_ids.shape[0])

    @property
    def received(self) -> torch.Tensor:
        """int64 [world_size] on the device: rows received from each rank."""
        return self._words(4, self._world_size())

    @property
    def sent(self) -> torch.Tensor:
        """int64 [world_size] on the device: rows sent to each rank."""
        return self._words(4 + self._world_size(), self._world_size())

    @property
    def total(self) -> torch.Tensor:
        """int64 [1] on the device: rows received."""
        return self._words(1, 1)

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
        return cls(owner, copies[0], copies[1], copies[2] if len(copies) == 3 else None)

    def _words(self, first: int, count: int) -> torch.Tensor:
        import torch

        return self.data[8 * first : 8 * (first + count)].view(torch.int64)

    def _world_size(self) -> int:
        owner = self._owner()
        if owner is None:
            raise ConfigError("routing: its dispatcher is gone")
        return owner.ctx.world_size


@dataclasses.dataclass(frozen=True)
class ReceiveLayout:
    """Where the parts of a receive buffer begin, in bytes, and what they hold."""

    rows: int
    ids: int
    weights: int
    scales: int
    sources: int
    capacity: int
    row_elements: int
    dtype: torch.dtype
    scale_kind: tuple[int, torch.dtype] | None


@dataclasses.dataclass(frozen=True)
class Trimmed:
    """Received rows in exact shapes, n of them."""

    x: torch.Tensor
    topk_ids: torch.Tensor
    topk_weights: torch.Tensor | None
    scales: torch.Tensor | None
    src: torch.Tensor


class Received:
    """Rows that a dispatch brought here, sorted by source rank, then by token. All tensors have `capacity` rows, of
    which the first `total` are valid; what lies behind is unspecified.

    x: [capacity, hidden], as dispatched.
    topk_ids: [capacity, topk] in the caller's type: global expert ids, -1 where the expert lives on another rank.
    topk_weights: float32 [capacity, topk], or None.
    scales: [capacity, columns], or None.
    src: int64 [capacity], source rank << 32 | token.
    counts: int64 [world_size], rows from each rank. total: int64 [1]. Both on the device.
    routing: the RoutingHandle for combine.

    The memory is lent: it is reused after the result was combined, `release()`d, or dropped together with its tensors.
    """

    def __init__(
        self, layout: ReceiveLayout, memory: torch.Tensor, routing: RoutingHandle, release: Callable[[], None]
    ) -> None:
        self.routing = routing
        self._layout, self._memory, self._release = layout, memory, release

    # Views are made when they are asked for: a dispatch costs no more than what its caller uses.

    @functools.cached_property
    def x(self) -> torch.Tensor:
        return self._part(self._layout.rows, self._layout.row_elements, self._layout.dtype)

    @functools.cached_property
    def topk_ids(self) -> torch.Tensor:
        ids = self.routing.topk_ids
        return self._part(self._layout.ids, ids.shape[1], ids.dtype)

    @functools.cached_property
    def topk_weights(self) -> torch.Tensor | None:
        weights = self.routing.topk_weights
        return None if weights is None else self._part(self._layout.weights, weights.shape[1], weights.dtype)

    @functools.cached_property
    def scales(self) -> torch.Tensor | None:
        kind = self._layout.scale_kind
        return None if kind is None else self._part(self._layout.scales, kind[0], kind[1])

    @functools.cached_property
    def src(self) -> torch.Tensor:
        import torch

        return self._part(self._layout.sources, 1, torch.int64).view(-1)

    def _part(self, offset: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
        rows = self._layout.capacity
        nbytes = rows * columns * dtype.itemsize
        return self._memory[offset : offset + nbytes].view(dtype).view(rows, columns)

    @property
    def counts(self) -> torch.Tensor:
        return self.routing.received

    @property
    def total(self) -> torch.Tensor:
        return self.routing.total

    def trim(self) -> Trimmed:
        """Views of exactly the valid rows. Waits for the device: not capturable in a graph."""
        n = int(self.total.item())
        if n < 0 or n > self.x.shape[0]:
            raise ConfigError("the dispatch failed; its context says why")
        cut = [None if t is None else t[:n] for t in (self.x, self.topk_ids, self.topk_weights, self.scales, self.src)]
        return Trimmed(*cut)  # type: ignore[arg-type]

    def release(self) -> None:
        """Gives the memory back for a later dispatch, in the order of the stream. Twice is once."""
        self._release()
