# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""A stand-in for the library, in torch alone: ranks are threads that read each other's tokens.

`opener(fault)` gives what `run_ep` takes as its opener. A fault is a function that spoils a result, so that a
test can see the bench notice.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import Any

import torch
from mori.bench.settings import EpSettings
from mori.bench.workload import make
from mori.mesh import Message

_worlds: dict[Any, World] = {}
_lock = threading.Lock()


class World:
    def __init__(self, size: int) -> None:
        self.gate = threading.Barrier(size, timeout=20)
        self.posted: dict[Any, Any] = {}


class Context:
    def __init__(self, world: World, rank: int, world_size: int) -> None:
        self.world, self.rank, self.world_size = world, rank, world_size
        self.mesh, self.count = self, 0

    def barrier(self) -> None:
        self.world.gate.wait()

    def exchange(self, tag: str, payload: bytes) -> list[Message]:
        self.world.posted[tag, self.rank] = Message(payload)
        self.barrier()
        messages = [self.world.posted[tag, peer] for peer in range(self.world_size)]
        self.barrier()
        return messages

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype, *, fill: int) -> torch.Tensor:
        tensor = torch.full(shape, fill, dtype=dtype)
        self.count += 1
        self.world.posted["heap", self.count, self.rank] = tensor
        self.barrier()
        return tensor

    def peer_tensor(self, tensor: torch.Tensor, peer: int) -> torch.Tensor:
        return self.world.posted["heap", self.count, peer]

    def synchronize(self) -> None:
        pass

    def close(self) -> None:
        pass


@dataclasses.dataclass
class Received:
    x: torch.Tensor
    scales: torch.Tensor | None
    topk_ids: torch.Tensor
    topk_weights: torch.Tensor
    src: torch.Tensor
    counts: torch.Tensor
    total: torch.Tensor
    routing: Any = None

    def release(self) -> None:
        pass


class Dispatcher:
    def __init__(self, ctx: Context, settings: EpSettings, fault: Callable[[str, int, Any], None] | None) -> None:
        self.ctx, self.settings, self.fault = ctx, settings, fault
        self.owner = torch.from_numpy(make(settings).owner).long()

    def dispatch(self, x: Any, ids: Any, weights: Any, scales: Any = None) -> Received:
        posted, rank, size = self.ctx.world.posted, self.ctx.rank, self.ctx.world_size
        posted["tokens", rank] = (x.view(torch.uint8), ids.long(), weights, scales)
        self.ctx.barrier()
        parts = []
        for peer in range(size):
            peer_x, peer_ids, peer_weights, peer_scales = posted["tokens", peer]
            here = (peer_ids >= 0) & (self.owner[peer_ids] == rank)
            tokens = here.any(dim=1).nonzero()[:, 0]
            absent = torch.zeros((len(tokens), 0), dtype=torch.uint8)
            parts.append(
                (
                    peer_x[tokens],
                    absent if peer_scales is None else peer_scales[tokens],
                    torch.where(here, peer_ids, -1)[tokens],
                    torch.where(here, peer_weights, 0)[tokens],
                    tokens | (peer << 32),
                )
            )
        columns = [torch.cat(column) for column in zip(*parts, strict=True)]
        total = len(columns[0])
        padded = [torch.cat([c, c.new_zeros((size * self.settings.tokens - total, *c.shape[1:]))]) for c in columns]
        counts = torch.tensor([len(part[0]) for part in parts])
        recv = Received(padded[0].view(x.dtype), *padded[1:], counts, torch.tensor([total]))
        recv.routing = columns[4]
        self._spoil("dispatch", recv)
        self.ctx.barrier()
        return recv

    def combine(self, rows: Any, routing: Any, release: bool = True) -> torch.Tensor:
        posted, rank = self.ctx.world.posted, self.ctx.rank
        posted["rows", rank] = (rows, routing)
        self.ctx.barrier()
        y = torch.zeros((self.settings.tokens, self.settings.hidden))
        for peer in range(self.ctx.world_size):
            peer_rows, src = posted["rows", peer]
            mine = (src >> 32) == rank
            y[src[mine] & 0xFFFFFFFF] += peer_rows[: len(src)][mine].float()
        out = y.to(rows.dtype)
        self._spoil("combine", out)
        self.ctx.barrier()
        return out

    def _spoil(self, op: str, result: Any) -> None:
        if self.fault is not None:
            self.fault(op, self.ctx.rank, result)


def opener(fault: Callable[[str, int, Any], None] | None = None) -> Callable[..., Any]:
    def open_fake(rank: int, world_size: int, uid: Any, settings: EpSettings, device: Any) -> Any:
        with _lock:
            world = _worlds.setdefault(uid, World(world_size))
        ctx = Context(world, rank, world_size)
        return ctx, Dispatcher(ctx, settings, fault)

    return open_fake
