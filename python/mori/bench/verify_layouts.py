# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The layouts by expert, checked on the device with torch: every selection has its slot, every slot its row's bits, and
sums are those of the rank's experts first, then of the ranks.

The "expert" of the bench multiplies by a factor of its own number, so that a row in a wrong group is noticed.
"""

from __future__ import annotations

from typing import Any

from .settings import EpSettings
from .verify import Mismatch, factor, values_torch, wire_rows
from .workload import Workload

__all__ = ["capacities", "check_slots", "check_sums", "local_factors", "slot_factors"]


def local_factors(workload: Workload, rank: int, device: Any) -> Any:
    """float32 [local experts]: what each expert of a rank multiplies by."""
    import torch

    mine = [expert for expert, owner in enumerate(workload.owner) if owner == rank]
    return torch.tensor([factor(expert) for expert in mine], dtype=torch.float32, device=device)


def slot_factors(recv: Any, factors: Any) -> Any:
    """The factor of each slot of a received x, shaped to multiply with it. Does not wait for a GPU."""
    import torch

    if recv.x.dim() == 3:
        return factors.view(-1, 1, 1)
    place = torch.arange(recv.x.shape[0], device=recv.x.device)
    group = torch.bucketize(place, recv.expert_offsets[1:].long().contiguous(), right=True)
    return factors[group.clamp(max=len(factors) - 1)].unsqueeze(1)


def capacities(settings: EpSettings, workload: Workload) -> tuple[int, int]:
    """(most rows of an expert, most slots of a rank, groups aligned): the sizes that this routing needs."""
    import numpy as np

    load = np.bincount(workload.ids[workload.ids >= 0].ravel(), minlength=settings.experts)
    aligned = -(-load // settings.align) * settings.align
    slots = max(int(aligned[workload.owner == rank].sum()) for rank in range(settings.ranks))
    return max(1, int(load.max())), max(settings.align, slots)


def check_slots(recv: Any, total: int, rank: int) -> Any:
    """Raises Mismatch unless each selection of a row that is here has the slot of its own, its expert's rows lie one
    behind the other in the order of rows, and all slots of a row hold the same bytes. Gives the slot to read each row
    from, int64 [total]."""
    import torch

    where = f"dispatch on rank {rank}"
    routes, ids = recv.routes[:total].long(), recv.topk_ids[:total].long()
    here = ids >= 0
    if not torch.equal(routes >= 0, here):
        raise Mismatch(f"{where}: routes and topk_ids differ about which selections are here")
    counts, offsets = recv.expert_counts.long(), recv.expert_offsets.long()
    row, k = here.nonzero(as_tuple=True)
    slot = routes[row, k]
    local = torch.unique(ids[row, k])
    group = torch.bucketize(slot, offsets[1:].contiguous(), right=True)
    order = torch.argsort(slot)
    slot, group, expert, rows = slot[order], group[order], ids[row, k][order], row[order]
    if not torch.equal(torch.bincount(group, minlength=len(counts)), counts):
        raise Mismatch(f"{where}: the slots in use do not have the counts that expert_counts gives")
    within = torch.cat([torch.arange(int(n), device=slot.device) for n in counts.tolist()]) if len(counts) else slot
    if not torch.equal(slot, offsets[group] + within):
        raise Mismatch(f"{where}: the rows of an expert do not lie one behind the other")
    same = group[1:] == group[:-1]
    if not bool(((expert[1:] == expert[:-1]) == same).all()) or not bool((rows[1:] > rows[:-1])[same].all()):
        raise Mismatch(f"{where}: a group holds rows of another expert, or not in order")
    if len(local) != len(torch.unique(group)):
        raise Mismatch(f"{where}: {len(local)} experts were chosen, {len(torch.unique(group))} groups are in use")
    first = torch.where(here, routes, torch.iinfo(torch.int64).max).amin(dim=1)
    flat = recv.x.reshape(-1, recv.x.shape[-1]).view(torch.uint8)
    for column in range(routes.shape[1]):
        there = here[:, column].nonzero()[:, 0]
        if not torch.equal(flat[routes[there, column]], flat[first[there]]):
            raise Mismatch(f"{where}: two slots of one row differ (selection {column})")
    return first


def check_sums(settings: EpSettings, workload: Workload, rank: int, y: Any, *, constant: float = 0.0) -> None:
    """Raises Mismatch unless y [tokens, hidden] is what combine must give for this rank's tokens; with `constant` each
    slot of rank r held that times r's factor."""
    import torch

    device = y.device
    ids = torch.from_numpy(workload.ids[rank]).to(device).long()
    owner = torch.from_numpy(workload.owner).to(device).long()[ids]
    factors = torch.tensor([factor(expert) for expert in range(settings.experts)], device=device)
    base = values_torch(settings.wire, torch.from_numpy(wire_rows(settings, rank)[0]).to(device))
    total = torch.zeros((settings.tokens, settings.hidden), device=device)
    for peer in range(settings.ranks):
        partial = torch.zeros_like(total)
        for column in range(settings.topk):
            there = (owner[:, column] == peer).nonzero()[:, 0]
            if constant:
                partial[there] += torch.tensor(constant * factor(peer), device=device).to(y.dtype).float()
            else:
                partial[there] += (base[there] * factors[ids[there, column]].unsqueeze(1)).to(y.dtype).float()
        total += partial.to(y.dtype).float()
    whole = {2: torch.int16, 4: torch.int32}[y.element_size()]
    different = y.view(whole) != total.to(y.dtype).view(whole)
    different &= (y != 0) | (total.to(y.dtype) != 0)  # the sign of a zero depends on what was added to it
    if bool(different.any()):
        token, column = (int(i) for i in different.nonzero()[0])
        seen, want = float(y[token, column]), float(total.to(y.dtype)[token, column])
        raise Mismatch(
            f"combine on rank {rank}: y[{token}, {column}] is {seen!r}, expected {want!r}; "
            f"{int(different.sum())} of {different.numel()} elements differ"
        )
