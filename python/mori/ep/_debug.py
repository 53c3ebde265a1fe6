# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What a dispatcher made with debug=True looks at (docs/ep_debug.md).

guards   bytes behind each part of its memory that nobody may write; looked at after every call on the CPU
stamps   a hash of every row, in its sender's memory: what a rank received must be what was sent in this very call
routing  a digest of each handle, made at its dispatch: a handle that was written to is refused
poison   receive and combine buffers are full of NaN before rows come
"""

from __future__ import annotations

import ctypes
from functools import partial
from typing import TYPE_CHECKING, Any

from mori import _core
from mori._dlpack import as_tensor
from mori.ep._calls import Call, CombineCall, DispatchCall
from mori.ep._leases import GUARD, POISON, Leases
from mori.ep.reference import quantize
from mori.errors import ConfigError, MoriError

if TYPE_CHECKING:
    import torch

    from mori.context import Context
    from mori.ep._plan import Plan
    from mori.ep._results import RoutingHandle

__all__ = ["Inspector"]

_EPOCH_FACTOR = 0x1E3779B97F4A7C15


class Inspector:
    """Of one dispatcher. On a GPU it only guards memory: looking would wait for the device."""

    def __init__(self, ctx: Context, plan: Plan, layout: Any, memory: _core.Allocation, leases: Leases) -> None:
        import torch

        self._ctx, self._plan, self._layout, self._memory, self._leases = ctx, plan, layout, memory, leases
        self._at_once = ctx.synchronous
        places = [(guard.behind, guard.offset) for guard in layout.guards]
        for index, start in enumerate(layout.receive_buffers):
            places += [(f"{g.behind} of receive buffer {index}", start + g.offset) for g in layout.receive_guards]
        self._names = [name for name, _ in places]
        for _, offset in places:
            ctx.heap.core.fill(memory.offset + offset, GUARD, _core.EP_GUARD_BYTES)
        mine = partial(memory.tensor, ctx.rank)
        words = (_core.EP_GUARD_BYTES // 8,)
        self._guards = [as_tensor(mine, offset, words, torch.int64) for _, offset in places]
        self._untouched = int.from_bytes(bytes([GUARD]) * 8, "little", signed=True)
        combine_bytes = layout.combine_buffers * layout.combine_bytes
        ctx.heap.core.fill(memory.offset + layout.combine_rows, POISON, combine_bytes)
        ctx.heap.core.fill(memory.offset + layout.stamps, 0, 16 * (1 + plan.max_tokens))
        shape = (2, 1 + plan.max_tokens)
        self._stamps = [
            as_tensor(partial(memory.tensor, rank), layout.stamps, shape, torch.int64) for rank in range(ctx.world_size)
        ]
        self._factors: dict[int, torch.Tensor] = {}

    def before(self, call: Call, core: Any) -> None:
        """Behind all checks of a call, before anything is sent."""
        if isinstance(call, CombineCall):
            self._check_rows(call)
        if not self._at_once:
            return
        if isinstance(call, DispatchCall):
            self._stamp(call, _signed(self._epochs(core)[0] + 1))
        elif isinstance(call, CombineCall):
            known = call.routing.digest
            if known is not None and known != self._digest(call.routing):
                raise ConfigError("routing: its memory was written to since its dispatch; nothing was sent")

    def after(self, call: Call, core: Any) -> None:
        """When everything that a call brings has come."""
        if not self._at_once:
            return
        self.check_memory()
        if isinstance(call, DispatchCall):
            self._check_received(call)
            call.handle.digest = self._digest(call.handle)
        elif isinstance(call, CombineCall):
            which = self._epochs(core)[1] % self._layout.combine_buffers
            size = self._layout.combine_bytes
            self._ctx.heap.core.fill(self._memory.offset + self._layout.combine_rows + which * size, POISON, size)

    def check_memory(self) -> None:
        """Raises MoriError naming the parts behind which somebody wrote."""
        import torch

        hurt = torch.stack(self._guards) != self._untouched
        if bool(hurt.any()):
            names = [name for name, bad in zip(self._names, hurt.any(1).tolist(), strict=True) if bad]
            raise MoriError(
                f"rank {self._ctx.rank}: memory was written behind {', '.join(names)} of a mori.ep.Dispatcher; "
                "an index of the experts' code, or of a kernel, is out of bounds"
            )

    # -- rows and handles

    def _check_rows(self, call: CombineCall) -> None:
        """Rows that lie in the result of one dispatch go home along its routes, or along equal ones."""
        home = self._leases.routing_at(call.rows.data_ptr())
        if home is None or home.root is None or call.routing.root is None or home.root == call.routing.root:
            return
        raise ConfigError(
            f"rows lie in the result of dispatch number {home.root} of this dispatcher, routing is of number "
            f"{call.routing.root}; pass the routing that came with the rows"
        )

    def _digest(self, routing: RoutingHandle) -> int:
        import torch

        words = routing.data[: routing.data.numel() // 8 * 8].view(torch.int64)
        return int((words * self._random(words.numel())).sum())

    # -- stamps

    def _stamp(self, call: DispatchCall, epoch: int) -> None:
        x, scales = call.x.detach(), call.scales
        if self._plan.recipe is not None:
            x, scales = quantize(x, self._plan.recipe)
        mine = self._stamps[self._ctx.rank][epoch & 1]
        mine[0] = epoch  # first: who still reads the other epoch's hashes sees that they go
        mine[1 : 1 + len(x)] = self._hashes(x, scales) + self._weights(call.handle.topk_weights) + _mix(epoch)

    def _check_received(self, call: DispatchCall) -> None:
        import torch

        received, routing, plan = call.received, call.handle, self._plan
        epoch, rows = int(routing.data[16:24].view(torch.int64)), int(routing.total)
        src = received.src[:rows]
        source, token = src >> 32, src & 0xFFFFFFFF
        nobody = self._ctx.world_size
        known = torch.where((source >= 0) & (source < nobody), source, nobody)
        come = torch.bincount(known, minlength=nobody + 1)[:nobody]
        if not torch.equal(come, routing.received) or bool((src[1:] <= src[:-1]).any()):
            raise MoriError(f"rank {self._ctx.rank}: src of the received rows is not that of call {epoch}")
        row, slot = torch.arange(rows), torch.arange(rows)
        if plan.layout != "rank":
            routes = received.routes[:rows]
            row, choice = (routes >= 0).nonzero(as_tuple=True)
            slot = routes[row, choice].long()
        x = received.x.reshape(-1, plan.row_elements)
        scales = received.scales
        if scales is not None:
            scales = scales.reshape(-1, scales.shape[-1])[slot]
        weights = received.topk_weights
        got = self._hashes(x.view(torch.uint8)[slot], scales) + _mix(epoch)
        got = got + self._weights(None if weights is None else weights[row])
        for rank in range(self._ctx.world_size):
            here = (source[row] == rank).nonzero().flatten()
            sent = self._stamps[rank][epoch & 1]
            wrong = got[here] != sent[1:][token[row[here]].clamp(max=plan.max_tokens - 1)]
            later = _signed(int(sent[0]) - epoch) > 0  # left out of a call, it may be in the next already
            if later or not bool(wrong.any()):
                continue
            which = here[wrong][0]
            raise MoriError(
                f"rank {self._ctx.rank}: what lies in slot {int(slot[which])} is not token {int(token[row[which]])} of "
                f"rank {rank} as sent in call {epoch} ({int(wrong.sum())} of its {len(here)} payloads differ): a row "
                "of an older call, or memory that was written to"
            )

    def _hashes(self, rows: torch.Tensor, scales: torch.Tensor | None) -> torch.Tensor:
        """int64 [rows]: of the bits of rows and their scales."""
        import torch

        words = _bytes(rows).view(torch.int64)
        found: torch.Tensor = (words * self._random(words.shape[1])).sum(1)
        if scales is not None:
            raw = _bytes(scales).long()
            found = found + ((raw + 1) * self._random(raw.shape[1])).sum(1) * 3
        return found

    def _weights(self, weights: torch.Tensor | None) -> torch.Tensor | int:
        import torch

        if weights is None:
            return 0
        bits = weights.detach().contiguous().view(torch.int32).long()
        total: torch.Tensor = ((bits + 1) * self._random(bits.shape[1])).sum(1) * 5
        return total

    def _random(self, count: int) -> torch.Tensor:
        """Odd numbers, alike on all ranks."""
        import torch

        if count not in self._factors:
            generator = torch.Generator().manual_seed(count)
            self._factors[count] = torch.randint(-(1 << 62), 1 << 62, (count,), generator=generator) | 1
        return self._factors[count]

    def _epochs(self, core: Any) -> tuple[int, int]:
        words = (ctypes.c_uint64 * 2)()
        self._ctx.core_device.copy(ctypes.addressof(words), core.local_address, 16)
        return int(words[0]), int(words[1])


def _bytes(rows: torch.Tensor) -> torch.Tensor:
    """uint8 [rows, bytes of a row]."""
    import torch

    return rows.contiguous().view(torch.uint8).view(len(rows), rows.shape[1] * rows.element_size())


def _mix(epoch: int) -> int:
    return _signed(epoch * _EPOCH_FACTOR)


def _signed(value: int) -> int:
    """As int64 holds it: epochs of 2^63 and beyond are negative there."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)
