# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What dispatch and combine mean, in plain torch on the CPU: the specification that tests compare with, bit for bit.

    sent = [Tokens(x, topk_ids, topk_weights) for each rank]
    expected = dispatch(sent, rank, expert_map)                     # what this rank must receive
    y = combine(sent, rank, expert_map, returned)                   # returned[d]: the rows that rank d gives back

Nothing here is fast, and nothing is shared with the kernels. docs/ep.md says the same in words.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from mori.errors import ConfigError

__all__ = ["Expected", "Tokens", "as_bits", "combine", "counts", "dispatch", "first_difference", "slots", "visits"]


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


def visits(topk_ids: torch.Tensor, expert_map: Sequence[int], world_size: int) -> torch.Tensor:
    """bool [tokens, world_size]: whether a token has at least one expert on a rank. Ids of -1 name no expert."""
    holder = torch.tensor([*expert_map, -1])[topk_ids.long()]  # index -1 is the last entry: nobody
    return (holder.unsqueeze(-1) == torch.arange(world_size)).any(dim=1)


def counts(sent: Sequence[Tokens], expert_map: Sequence[int]) -> torch.Tensor:
    """int64 [source, destination]: the matrix C of docs/ep.md."""
    return torch.stack([visits(tokens.topk_ids, expert_map, len(sent)).sum(0) for tokens in sent])


def slots(sent: Sequence[Tokens], source: int, expert_map: Sequence[int]) -> torch.Tensor:
    """int64 [tokens, world_size]: in which row of a rank a token of `source` lands, -1 where it does not go."""
    mine = visits(sent[source].topk_ids, expert_map, len(sent))
    from_lower_ranks = counts(sent, expert_map)[:source].sum(0)
    earlier_tokens = mine.long().cumsum(0) - mine.long()
    return torch.where(mine, from_lower_ranks + earlier_tokens, -1)


def dispatch(sent: Sequence[Tokens], rank: int, expert_map: Sequence[int]) -> Expected:
    """What `rank` receives: the tokens that visit it, sorted by source rank, then by token."""
    world_size = len(sent)
    came = [visits(tokens.topk_ids, expert_map, world_size)[:, rank].nonzero().flatten() for tokens in sent]

    def gather(parts: Sequence[torch.Tensor]) -> torch.Tensor:
        rows = [as_bits(part)[t] for part, t in zip(parts, came, strict=True)]
        return torch.cat(rows).view(parts[0].dtype)

    def gather_given(parts: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
        given = [part for part in parts if part is not None]
        return gather(given) if given else None  # on all ranks alike

    ids = gather([tokens.topk_ids for tokens in sent])
    here = torch.tensor([*expert_map, -1])[ids.long()] == rank
    return Expected(
        x=gather([tokens.x for tokens in sent]),
        topk_ids=torch.where(here, ids, -1),
        topk_weights=gather_given([tokens.topk_weights for tokens in sent]),
        scales=gather_given([tokens.scales for tokens in sent]),
        src=torch.cat([t | source << 32 for source, t in enumerate(came)]),
        counts=torch.tensor([len(t) for t in came]),
    )


def combine(
    sent: Sequence[Tokens],
    rank: int,
    expert_map: Sequence[int],
    returned: Sequence[torch.Tensor],
    *,
    apply_weights: bool = False,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """What combine returns on `rank`: for each token the sum of its rows, in float32, in ascending order of the
    ranks that
    return them, beginning with 0 + bias; rounded to the type of the rows once, at the end.

    With `apply_weights` the row of a rank is first multiplied by the float32 sum, in top-k order, of the token's
    weights whose experts live there."""
    mine = sent[rank]
    where = slots(sent, rank, expert_map)
    holder = torch.tensor([*expert_map, -1])[mine.topk_ids.long()]
    total = torch.zeros(len(where), returned[0].shape[1])
    if bias is not None:
        total += bias.float()
    for peer, rows in enumerate(returned):
        tokens = (where[:, peer] >= 0).nonzero().flatten()
        values = rows[where[tokens, peer]].float()
        if apply_weights:
            if mine.topk_weights is None:
                raise ConfigError("apply_weights=True needs topk_weights")
            weight = torch.zeros(len(tokens))
            for k in range(mine.topk_ids.shape[1]):
                weight += torch.where(holder[tokens, k] == peer, mine.topk_weights[tokens, k], 0.0)
            values = weight.unsqueeze(1) * values
        total[tokens] += values
    return total.to(returned[0].dtype)


def as_bits(tensor: torch.Tensor) -> torch.Tensor:
    """The same bytes as integers, which can be indexed and compared whatever the type."""
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.view(whole[tensor.element_size()])


def first_difference(name: str, got: torch.Tensor | None, wanted: torch.Tensor | None, *, any_nan: bool = False) -> str:
    """Empty if both have the same type, shape and bits, else what differs first. With `any_nan` a NaN equals any
    NaN, for results of arithmetic: which of its many bit patterns an addition gives is the processor's choice."""
    if got is None or wanted is None:
        return "" if got is wanted else f"{name} is {'absent' if got is None else 'present'}"
    got = got.cpu()
    if (got.dtype, got.shape) != (wanted.dtype, wanted.shape):
        return f"{name} is {got.dtype} {tuple(got.shape)}, wanted {wanted.dtype} {tuple(wanted.shape)}"
    differs = as_bits(got) != as_bits(wanted)
    if any_nan:
        differs &= ~(got.isnan() & wanted.isnan())
    if not differs.any():
        return ""
    at = tuple(differs.nonzero()[0].tolist())
    width = 2 * got.element_size()
    bits = [int(as_bits(t)[at]) % (1 << 4 * width) for t in (got, wanted)]
    return (
        f"{name}[{', '.join(map(str, at))}] is 0x{bits[0]:0{width}x}, wanted 0x{bits[1]:0{width}x} "
        f"({int(differs.sum())} of {differs.numel()} differ)"
    )
