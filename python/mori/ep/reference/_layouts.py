# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The layouts by expert: where the copies of each received row lie, and how they become one row again.

A *row* is a token that came here, numbered as in the layout `rank`; a *slot* is a place of the payload that the
experts read. A row has one slot for each of its experts that live here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from mori.ep.reference._compare import as_bits
from mori.ep.reference._rank import Expected
from mori.errors import CapacityError, ConfigError

__all__ = ["Arranged", "arrange", "gather_rows"]


@dataclasses.dataclass(frozen=True)
class Arranged:
    """Received rows by expert.

    x, scales: `expert`: [experts, capacity, ...], zero where no row is; `grouped`: [offsets[-1], ...].
    counts: int64 [experts], rows of each.
    offsets: int32 [experts + 1], first slot of each expert; the last is where the last group ends.
    routes: int32 [rows, topk], the slot of each selection, -1 where there is none.
    slot_rows: int32 [slots], the row in each slot, -1 for padding.
    """

    x: torch.Tensor
    scales: torch.Tensor | None
    counts: torch.Tensor
    offsets: torch.Tensor
    routes: torch.Tensor
    slot_rows: torch.Tensor


def arrange(
    received: Expected, experts: Sequence[int], *, layout: str, expert_capacity: int = 0, align: int = 1
) -> Arranged:
    """The rows of `received` by expert. `experts` are those that live here, in the order of their local indices.

    layout: "expert": expert e begins at slot e * expert_capacity. "grouped": groups lie one behind the other, each as
    long as its rows, rounded up to a multiple of `align`. Within an expert rows keep their order."""
    if layout not in ("expert", "grouped"):
        raise ConfigError(f"layout={layout!r}: allowed are expert, grouped")
    chosen = [(received.topk_ids == expert) for expert in experts]
    rows = [mask.any(dim=1).nonzero().flatten() for mask in chosen]
    lengths = [len(r) for r in rows]
    if layout == "expert":
        for expert, length in zip(experts, lengths, strict=True):
            if length > expert_capacity:
                raise CapacityError(f"expert {expert} would receive {length} rows, its capacity is {expert_capacity}")
        starts = [index * expert_capacity for index in range(len(experts) + 1)]
    else:
        starts = [0]
        for length in lengths:
            starts.append(starts[-1] + -(-length // align) * align)
    slot_rows = torch.full((starts[-1],), -1, dtype=torch.int32)
    routes = torch.full(received.topk_ids.shape, -1, dtype=torch.int32)
    for mask, there, start in zip(chosen, rows, starts, strict=False):
        slots = torch.arange(start, start + len(there), dtype=torch.int32)
        slot_rows[start : start + len(there)] = there.int()
        routes[there] = torch.where(mask[there], slots.unsqueeze(1), routes[there])

    def place(rows_: torch.Tensor) -> torch.Tensor:
        bits = as_bits(rows_)
        out = torch.zeros((len(slot_rows), *bits.shape[1:]), dtype=bits.dtype)
        out[slot_rows >= 0] = bits[slot_rows[slot_rows >= 0].long()]
        shaped = out.view(len(experts), expert_capacity, *bits.shape[1:]) if layout == "expert" else out
        return shaped.view(rows_.dtype)

    return Arranged(
        x=place(received.x),
        scales=None if received.scales is None else place(received.scales),
        counts=torch.tensor(lengths, dtype=torch.int64),
        offsets=torch.tensor(starts, dtype=torch.int32),
        routes=routes,
        slot_rows=slot_rows,
    )


def gather_rows(placed: Arranged, outputs: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """[rows, hidden]: what a rank returns for each received row, for the experts' `outputs` [slots, hidden]: the
    float32 sum of the row's slots in top-k order, from 0, each first multiplied by its weight if `weights` [rows, topk]
    are given; rounded to the type of outputs once."""
    flat = outputs.reshape(-1, outputs.shape[-1])
    total = torch.zeros(len(placed.routes), flat.shape[1])
    for k in range(placed.routes.shape[1]):
        there = (placed.routes[:, k] >= 0).nonzero().flatten()
        values = flat[placed.routes[there, k].long()].float()
        if weights is not None:
            values = weights[there, k].unsqueeze(1) * values
        total[there] += values
    return total.to(outputs.dtype)
