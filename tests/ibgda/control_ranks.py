# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Two ranks over MORI_IBGDA_NIC, a NIC that takes entries and never completes one. Run by test_queue_control.py."""

from __future__ import annotations

import mori.shmem
import torch
from mori.errors import CapacityError, ConfigError, TimeoutError
from mori.testing import run_ranks

import mori


def refused(call: object, *arguments: object) -> str:
    try:
        call(*arguments)  # type: ignore[operator]
    except (CapacityError, ConfigError, TimeoutError) as error:
        return f"{type(error).__name__}: {error}"
    return "went well"


def work(rank: int, size: int, uid: bytes) -> list[str]:
    with mori.init(
        uid=uid, rank=rank, world_size=size, device="cpu", timeout=3, heap_bytes=8 << 20, transport="ibgda"
    ) as ctx:
        fabric = ctx.heap.fabric
        said = [repr(ctx)]
        own = fabric.offer()
        software = own[:24] + bytes([1]) + own[25:]
        if rank == 0:
            said += [refused(fabric.connect, [own, other]) for other in (software, own[:40], own[:-1], own + b"0")]
        shm = mori.shmem.Shmem(ctx)
        word = shm.empty((16,), torch.int32)
        said.append(refused(shm.empty, (4 << 20,), torch.float32))
        said.append(refused(shm.put, word, torch.ones(16, dtype=torch.int32), 1) if rank == 0 else "")
        ctx.mesh.barrier(timeout=30)
        return said


if __name__ == "__main__":
    for line in run_ranks(work, 2, mode="thread", timeout=60)[0]:
        print(line)
