# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Where experts live. The kernels know *copies*, each on one rank; an expert has one copy or several, and which of them
a selection goes to is chosen here, on the device, before the kernel runs."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mori.errors import ConfigError

if TYPE_CHECKING:
    import torch

__all__ = ["Placement", "place"]


class Placement:
    """Copies of experts in ascending order of expert, then of rank: that order numbers them."""

    def __init__(self, held_by: Sequence[tuple[int, ...]], world_size: int) -> None:
        self.held_by, self.world_size = tuple(held_by), world_size
        self.copy_rank = tuple(rank for ranks in held_by for rank in ranks)
        self.copy_expert = tuple(expert for expert, ranks in enumerate(held_by) for _ in ranks)

    @property
    def replicated(self) -> bool:
        """Whether any expert has not exactly one copy."""
        return len(self.copy_rank) != len(self.held_by)

    def local(self, rank: int) -> tuple[int, ...]:
        """The experts of which `rank` holds a copy, ascending: their places are their local indices."""
        return self._of_rank[rank]

    @property
    def most_on_a_rank(self) -> int:
        return max(map(len, self._of_rank))

    @functools.cached_property
    def _of_rank(self) -> tuple[tuple[int, ...], ...]:
        pairs = list(zip(self.copy_expert, self.copy_rank, strict=True))
        return tuple(tuple(e for e, r in pairs if r == rank) for rank in range(self.world_size))


class CopyChooser:
    """Turns expert ids into numbers of copies, and back, with tables on the device. A rank that holds a copy takes its
    own; of other experts' copies its tokens take turns."""

    def __init__(self, rank: int, experts: int, copies: int, max_tokens: int, device: torch.device) -> None:
        import torch

        self._rank, self._experts = rank, experts
        self._first = torch.zeros(experts + 1, dtype=torch.int64, device=device)  # the last entry is for id -1
        self._number = torch.ones(experts + 1, dtype=torch.int64, device=device)
        self.expert_of = torch.full((copies + 1,), -1, dtype=torch.int64, device=device)
        self._turn = (torch.arange(max_tokens, device=device) + rank).unsqueeze(1)

    def load(self, placement: Placement) -> None:
        """Fills the tables anew, in the order of the stream."""
        import torch

        first, number, start = [], [], 0
        for ranks in placement.held_by:
            mine = self._rank in ranks
            first.append(start + ranks.index(self._rank) if mine else start)
            number.append(1 if mine else len(ranks))
            start += len(ranks)
        self._first.copy_(torch.tensor([*first, -1]))
        self._number.copy_(torch.tensor([*number, 1]))
        self.expert_of.copy_(torch.tensor([*placement.copy_expert, -1]))

    def copies(self, topk_ids: torch.Tensor) -> torch.Tensor:
        """Ids in the same type; ids outside 0..num_experts - 1 stay what they are, for the kernel to judge."""
        import torch

        wide = topk_ids.long()
        known = (wide >= 0) & (wide < self._experts)
        index = torch.where(known, wide, self._experts)
        chosen = self._first[index] + self._turn[: len(wide)] % self._number[index]
        # An id that is refused must not become a copy that exists.
        largest = torch.iinfo(topk_ids.dtype).max - len(self.expert_of)
        beyond = torch.where(wide < -1, wide, wide.clamp(max=largest) + (len(self.expert_of) - 1 - self._experts))
        return torch.where(known, chosen, torch.where(wide == -1, wide, beyond)).to(topk_ids.dtype)

    def experts(self, copies: torch.Tensor) -> torch.Tensor:
        """The expert of each copy; what is no copy becomes -1."""
        import torch

        last = len(self.expert_of) - 1
        wide = copies.long()
        return self.expert_of[torch.where((wide >= 0) & (wide < last), wide, last)].to(copies.dtype)


def place(given: Sequence[int | Sequence[int]] | None, num_experts: int, world_size: int) -> Placement:
    """Checks an expert_map. None: contiguous blocks, the first num_experts % world_size ranks one larger."""
    if given is None:
        each, larger = divmod(num_experts, world_size)
        sizes = [each + (rank < larger) for rank in range(world_size)]
        return Placement([(rank,) for rank, size in enumerate(sizes) for _ in range(size)], world_size)
    held: list[tuple[int, ...]] = []
    try:
        entries = [(int(e),) if not isinstance(e, Sequence) else tuple(int(r) for r in e) for e in given]
    except (TypeError, ValueError):
        raise ConfigError(f"expert_map={given!r} must hold the rank, or the ranks, of each expert") from None
    if len(entries) != num_experts:
        raise ConfigError(f"expert_map has {len(entries)} entries, num_experts is {num_experts}")
    for expert, ranks in enumerate(entries):
        if not ranks:
            raise ConfigError(f"expert_map[{expert}] is empty; each expert needs a rank")
        for rank in ranks:
            if not 0 <= rank < world_size:
                raise ConfigError(f"expert_map[{expert}]={rank} is not a rank of 0..{world_size - 1}")
        if len(set(ranks)) != len(ranks):
            raise ConfigError(f"expert_map[{expert}]={list(ranks)} names a rank twice; a rank holds one copy")
        held.append(tuple(sorted(ranks)))
    return Placement(held, world_size)
