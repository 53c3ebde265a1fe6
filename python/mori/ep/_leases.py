# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Which receive buffers are in use. A buffer is lent to one result and comes back when that is combined, released, or
dropped together with every tensor over it; each rank lends its own, peers are told with every dispatch."""

from __future__ import annotations

import threading
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from mori import _core
from mori._dlpack import as_tensor
from mori.errors import CapacityError

if TYPE_CHECKING:
    import torch

    from mori.context import Context
    from mori.ep._results import RoutingHandle

#: What a buffer is filled with in debug mode before rows come: NaN in every floating type that can be received.
POISON = 0xFF
#: Of the bytes behind parts of a buffer that nobody may write, in debug mode.
GUARD = 0xA5


class Lease:
    """One use of a buffer. `tensor` (uint8) keeps it taken for as long as anything views it."""

    def __init__(self, owner: Leases, index: int, tensor: torch.Tensor) -> None:
        self.index, self.tensor = index, tensor
        self.address = tensor.data_ptr()
        self._owner = owner
        self.generation = owner.generation[index]

    def release(self) -> None:
        self._owner.give_back(self.index, self.generation)

    def valid(self) -> bool:
        """Whether the buffer has not been given back."""
        return self._owner.lent(self.index, self.generation)


class Leases:
    def __init__(self, ctx: Context, memory: _core.Allocation, layout: Any, count: int) -> None:
        self._ctx, self._memory, self._layout = ctx, memory, layout
        self._lock = threading.Lock()
        self._free = list(range(count))
        self._count = count
        self.generation = [0] * count
        self._of_routing: weakref.WeakKeyDictionary[RoutingHandle, tuple[int, int, int]] = weakref.WeakKeyDictionary()

    def take(self, *, poison: bool = False) -> Lease:
        with self._lock:
            if not self._free:
                raise CapacityError(
                    f"live_results={self._count} results of dispatch are alive; combine, release() or drop one first"
                )
            index = self._free.pop(0)
            self.generation[index] += 1
            generation = self.generation[index]
        import torch

        shape = (int(self._layout.receive_bytes),)
        offset = self._layout.receive_buffers[index]
        tensor = as_tensor(partial(self._memory.tensor, self._ctx.rank), offset, shape, torch.uint8)
        # A storage lives as long as any view of it: its end is the end of the last tensor over this buffer.
        weakref.finalize(tensor.untyped_storage(), self.give_back, index, generation)
        if poison:
            tensor.fill_(POISON)
            for guard in self._layout.receive_guards:
                tensor[guard.offset : guard.offset + _core.EP_GUARD_BYTES].fill_(GUARD)
        return Lease(self, index, tensor)

    def bind(self, lease: Lease, routing: RoutingHandle) -> None:
        self._of_routing[routing] = (lease.index, lease.generation, lease.address)

    def address_of(self, routing: RoutingHandle) -> int:
        """Where the buffer lies that the dispatch of this handle filled; 0 if it was given back since."""
        index, generation, address = self._of_routing.get(routing, (0, -1, 0))
        return address if self.lent(index, generation) else 0

    def routing_at(self, address: int) -> RoutingHandle | None:
        """The handle of the dispatch in whose result an address lies."""
        for routing, (index, generation, start) in list(self._of_routing.items()):
            if start <= address < start + int(self._layout.receive_bytes) and self.lent(index, generation):
                return routing
        return None

    def release_of(self, routing: RoutingHandle) -> None:
        """Releases the buffer of the dispatch that made this handle, if it is still lent to it."""
        held = self._of_routing.pop(routing, None)
        if held is not None:
            self.give_back(*held[:2])

    def lent(self, index: int, generation: int) -> bool:
        with self._lock:
            return self.generation[index] == generation and index not in self._free

    def give_back(self, index: int, generation: int) -> None:
        with self._lock:
            if self.generation[index] == generation and index not in self._free:
                self._free.append(index)
