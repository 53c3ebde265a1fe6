# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The layout `rank`: one row per token and destination rank, sorted by source rank, then by token."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import TypeAlias

import torch

from mori.ep.reference._compare import as_bits
from mori.ep.reference._quantize import wire_values
from mori.errors import ConfigError

__all__ = [
    "Expected",
    "ExpertMap",
    "Tokens",
    "combine",
    "counts",
    "dispatch",
    "holders",
    "local_experts",
    "slots",
    "visits",
]

#: For each expert the rank that holds it, or the ranks that hold a copy each.
ExpertMap: TypeAlias = "Sequence[int | Sequence[int]]"


@dataclasses.dataclass(frozen=True)
class Tokens:
    """What one rank passes to dispatch."""

    x: torch.Tensor
    topk_ids: torch.Tensor
    topk_weights: torch.Tensor | None = None
    scales: torch.Tensor | None = None


@dataclasses.dataclass(frozen=True)
class Expected:
    """What one rank receives: exactly the valid rows, and how many of them came from each rank."""

    x: torch.Tensor
    topk_ids: torch.Tensor
    topk_weights: torch.Tensor | None
    scales: torch.Tensor | None
    src: torch.Tensor
    counts: torch.Tensor


def _copies(entry: int | Sequence[int]) -> list[int]:
    return [entry] if isinstance(entry, int) else sorted(entry)


def local_experts(expert_map: ExpertMap, rank: int) -> list[int]:
    """The experts of which `rank` holds a copy, ascending: their places are their local indices."""
    return [expert for expert, entry in enumerate(expert_map) if rank in _copies(entry)]


def holders(
    topk_ids: torch.Tensor, expert_map: ExpertMap, source: int = 0, active: Collection[int] | None = None
) -> torch.Tensor:
    """int64 [tokens, topk]: the rank that each selection of rank `source` goes to, -1 for none.

    Of several copies of an expert the source's own is taken, else the one numbered (source + token) modulo their
    number, copies numbered by ascending rank. A rank that is not active is nobody's."""
    copies = [_copies(entry) for entry in expert_map]
    widest = max(map(len, copies), default=1)
    chosen = [[source] * widest if source in c else [c[i % len(c)] for i in range(widest)] for c in copies]
    number = torch.tensor([1 if source in c else len(c) for c in copies] + [1])
    table = torch.tensor([*chosen, [-1] * widest])
    ids = topk_ids.long()  # index -1 is the last entry: nobody
    turn = (source + torch.arange(len(ids)).unsqueeze(1)) % number[ids]
    found = table[ids, turn]
    if active is None:
        return found
    return torch.where(torch.isin(found, torch.tensor(sorted(active))), found, -1)


def visits(
    topk_ids: torch.Tensor,
    expert_map: ExpertMap,
    world_size: int,
    source: int = 0,
    active: Collection[int] | None = None,
) -> torch.Tensor:
    """bool [tokens, world_size]: whether a token has at least one expert on a rank. Ids of -1 name no expert."""
    holder = holders(topk_ids, expert_map, source, active)
    return (holder.unsqueeze(-1) == torch.arange(world_size)).any(dim=1)


def _all_visits(
    sent: Sequence[Tokens], expert_map: ExpertMap, active: Collection[int] | None = None
) -> list[torch.Tensor]:
    """What each rank's tokens visit. A rank that is not active sends nothing, whatever it holds."""
    found = [visits(t.topk_ids, expert_map, len(sent), s, active) for s, t in enumerate(sent)]
    return [v if active is None or s in active else v & False for s, v in enumerate(found)]


def counts(sent: Sequence[Tokens], expert_map: ExpertMap, active: Collection[int] | None = None) -> torch.Tensor:
    """int64 [source, destination]: the matrix C of docs/ep.md."""
    return torch.stack([goes.sum(0) for goes in _all_visits(sent, expert_map, active)])


def slots(
    sent: Sequence[Tokens], source: int, expert_map: ExpertMap, active: Collection[int] | None = None
) -> torch.Tensor:
    """int64 [tokens, world_size]: in which row of a rank a token of `source` lands, -1 where it does not go."""
    mine = _all_visits(sent, expert_map, active)[source]
    from_lower_ranks = counts(sent, expert_map, active)[:source].sum(0)
    earlier_tokens = mine.long().cumsum(0) - mine.long()
    return torch.where(mine, from_lower_ranks + earlier_tokens, -1)


def dispatch(
    sent: Sequence[Tokens], rank: int, expert_map: ExpertMap, active: Collection[int] | None = None
) -> Expected:
    """What `rank` receives: the tokens that visit it, sorted by source rank, then by token."""
    came = [goes[:, rank].nonzero().flatten() for goes in _all_visits(sent, expert_map, active)]

    def gather(parts: Sequence[torch.Tensor]) -> torch.Tensor:
        rows = [as_bits(part)[t] for part, t in zip(parts, came, strict=True)]
        return torch.cat(rows).view(parts[0].dtype)

    def gather_given(parts: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
        given = [part for part in parts if part is not None]
        return gather(given) if given else None  # on all ranks alike

    where = [holders(tokens.topk_ids, expert_map, source, active) for source, tokens in enumerate(sent)]
    return Expected(
        x=gather([tokens.x for tokens in sent]),
        topk_ids=torch.where(gather(where) == rank, gather([tokens.topk_ids for tokens in sent]), -1),
        topk_weights=gather_given([tokens.topk_weights for tokens in sent]),
        scales=gather_given([tokens.scales for tokens in sent]),
        src=torch.cat([t | source << 32 for source, t in enumerate(came)]),
        counts=torch.tensor([len(t) for t in came]),
    )


def combine(
    sent: Sequence[Tokens],
    rank: int,
    expert_map: ExpertMap,
    returned: Sequence[torch.Tensor],
    *,
    apply_weights: bool = False,
    bias: torch.Tensor | None = None,
    active: Collection[int] | None = None,
    dtype: torch.dtype | None = None,
    wire: str | None = None,
) -> torch.Tensor:
    """What combine returns on `rank`: for each token the sum of its rows, in float32, in ascending order of the
    ranks that return them, beginning with 0 + bias; rounded to `dtype`, by default the type of the rows, once, at the
    end. With `wire` the rows of other ranks are what is left of them (`wire_values`).

    With `apply_weights` the row of a rank is first multiplied by the float32 sum, in top-k order, of the token's
    weights whose experts live there."""
    mine = sent[rank]
    where = slots(sent, rank, expert_map, active)
    holder = holders(mine.topk_ids, expert_map, rank, active)
    total = torch.zeros(len(where), returned[0].shape[1])
    if bias is not None:
        total += bias.float()
    for peer, rows in enumerate(returned):
        tokens = (where[:, peer] >= 0).nonzero().flatten()
        values = rows[where[tokens, peer]]
        values = (values if peer == rank else wire_values(values, wire)).float()
        if apply_weights:
            if mine.topk_weights is None:
                raise ConfigError("apply_weights=True needs topk_weights")
            weight = torch.zeros(len(tokens))
            for k in range(mine.topk_ids.shape[1]):
                weight += torch.where(holder[tokens, k] == peer, mine.topk_weights[tokens, k], 0.0)
            values = weight.unsqueeze(1) * values
        total[tokens] += values
    return total.to(dtype or returned[0].dtype)
