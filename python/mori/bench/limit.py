# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The physical limit beside every number: a plain copy of the same bytes over the same path, all ranks at
once.

Each rank copies as many bytes to each peer as the measured operation sends there, from private memory
straight into the peer's part of the symmetric heap: memcpy on CPUs, torch's copy_ on GPUs. A dispatch reads
the same tokens again for every peer, so its copy does too; a combine's rows are all different, so its copy
reads on (`consecutive`). Nothing is counted, signalled, sorted or waited for, and rows that stay on their
rank are not copied at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Part", "landing_bytes", "parts", "plain_copy"]

Part = tuple[int, int, int, int]


def landing_bytes(sent: NDArray[np.int64]) -> int:
    """Bytes that the rank with the most receives from others: the size of everyone's landing place."""
    return max(1, int((sent.sum(axis=0) - np.diagonal(sent)).max()))


def parts(rank: int, sent: NDArray[np.int64], *, consecutive: bool) -> Iterator[Part]:
    """(peer, offset in the source, offset in the peer's landing place, bytes) of what `rank` copies.

    Each rank begins with its right neighbour, so that they do not all write to one peer at a time.
    """
    ranks, start = len(sent), 0
    for step in range(1, ranks):
        peer = (rank + step) % ranks
        count = int(sent[rank, peer])
        if count:
            yield peer, start, int(sum(sent[p, peer] for p in range(rank) if p != peer)), count
        start += count if consecutive else 0


def plain_copy(ctx: Any, sent: NDArray[np.int64], *, consecutive: bool, device: Any) -> Callable[[], None]:
    """Collective. A call that copies sent[rank, peer] bytes to every peer (on a GPU: queues that)."""
    import torch

    landing = ctx.empty((landing_bytes(sent),), torch.uint8, fill=0)  # filled: its pages are the receiver's
    mine = list(parts(ctx.rank, sent, consecutive=consecutive))
    size = max((start + count for _, start, _, count in mine), default=1)
    source = torch.ones(size, dtype=torch.uint8, device=device)
    peers = {peer: ctx.peer_tensor(landing, peer) for peer, _, _, _ in mine}
    pairs: list[tuple[Any, Any]] = [
        (peers[peer][before : before + count], source[start : start + count]) for peer, start, before, count in mine
    ]
    if device.type == "cpu":
        pairs = [(target.numpy(), part.numpy()) for target, part in pairs]
    else:
        torch.cuda.synchronize(device)
    ctx.barrier()

    def copy() -> None:
        if device.type == "cpu":
            for target, part in pairs:
                np.copyto(target, part)
        else:
            for target, part in pairs:
                target.copy_(part, non_blocking=True)

    return copy
