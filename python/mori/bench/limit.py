# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The physical limit beside every number: a plain copy of the same bytes over the same path, all ranks at once.

Each rank copies as many bytes to each peer as the measured operation sends there, from private memory straight into
memory of the peer that it has mapped. A dispatch reads the same tokens again for every peer, so its copy does too; a
combine's rows are all different, so its copy reads on (`consecutive`). Nothing is counted, signalled, sorted or waited
for: no protocol that moves each byte once is faster.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["cpu_copy", "cuda_copy"]


def _peers_from(rank: int, ranks: int) -> list[int]:
    """The other ranks, each rank beginning with its right neighbour, so that they do not all write to one."""
    return [(rank + step) % ranks for step in range(1, ranks)]


def _parts(rank: int, sent: NDArray[np.int64], consecutive: bool) -> Iterator[tuple[int, int, int, int]]:
    """(peer, offset in the source, offset in the peer's memory, bytes) of what `rank` copies."""
    start = 0
    for peer in _peers_from(rank, len(sent)):
        count = int(sent[rank, peer])
        if count:
            before = int(sum(sent[p, peer] for p in range(rank) if p != peer))
            yield peer, start, before, count
        start += count if consecutive else 0


def cpu_copy(
    ctx: Any, name: str, sent: NDArray[np.int64], source: NDArray[np.uint8], *, consecutive: bool = False
) -> Callable[[], None]:
    """A memcpy of sent[rank, peer] bytes into every peer's shared memory. Collective."""
    rank, ranks = ctx.rank, ctx.world_size
    total = max(int(sent[:, rank].sum() - sent[rank, rank]), 1)
    fd = os.memfd_create(f"mori-bench-{name}")
    try:
        os.ftruncate(fd, total)
        messages = ctx.mesh.exchange(f"bench limit {name}", b"", [fd])
        own = np.frombuffer(mmap.mmap(fd, total), dtype=np.uint8)
        own[::4096] = 0  # the pages are the receiver's, as in its heap
    finally:
        os.close(fd)
    views = {}
    for peer in _peers_from(rank, ranks):
        (peer_fd,) = messages[peer].fds
        received = int(sent[:, peer].sum() - sent[peer, peer])
        if received:
            views[peer] = np.frombuffer(mmap.mmap(peer_fd, received), dtype=np.uint8)
        os.close(peer_fd)
    pairs = [
        (views[peer][before : before + count], source[start : start + count])
        for peer, start, before, count in _parts(rank, sent, consecutive)
    ]

    def copy(keep: Any = own) -> None:
        for target, part in pairs:
            np.copyto(target, part)

    return copy


def cuda_copy(
    ctx: Any,
    name: str,
    sent: NDArray[np.int64],
    source: Any,
    shared: dict[Any, Any] | None,
    *,
    consecutive: bool = False,
) -> Callable[[], None]:
    """torch's copy_ of sent[rank, peer] bytes into every peer's tensor, queued on the current stream. Collective.

    `shared` is a dictionary common to ranks that are threads of one process; ranks that are processes open each
    other's memory through torch's IPC handles.
    """
    import torch

    rank, ranks = ctx.rank, ctx.world_size
    received = sent.sum(axis=0) - np.diagonal(sent)
    own = torch.zeros(max(int(received[rank]), 1), dtype=torch.uint8, device=source.device)
    torch.cuda.synchronize(source.device)
    if shared is not None:
        shared[name, rank] = own
        ctx.mesh.barrier(f"bench limit {name}")
        peers = [shared[name, peer] for peer in range(ranks)]
    else:
        peers = _open_tensors(ctx, name, own)
    pairs = [
        (peers[peer][before : before + count], source[start : start + count])
        for peer, start, before, count in _parts(rank, sent, consecutive)
    ]

    def copy() -> None:
        for target, part in pairs:
            target.copy_(part, non_blocking=True)

    return copy


def _open_tensors(ctx: Any, name: str, own: Any) -> list[Any]:
    import pickle

    from torch.multiprocessing.reductions import reduce_tensor

    messages = ctx.mesh.exchange(f"bench limit {name}", pickle.dumps(reduce_tensor(own)))
    tensors = []
    for peer, message in enumerate(messages):
        if peer == ctx.rank:
            tensors.append(own)
            continue
        # From a process of our own run, over a socket whose owner was checked.
        rebuild, arguments = pickle.loads(message.payload)
        tensors.append(rebuild(*arguments))
    return tensors
