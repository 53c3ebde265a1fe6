# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Two ranks over TCP whose network goes away between two puts. Run by test_link_down.py, in a network of its own."""

from __future__ import annotations

import subprocess
import time

import mori.shmem
import torch
from mori.errors import TransportError
from mori.testing import run_ranks

import mori


def link(state: str) -> None:
    subprocess.run(["ip", "link", "set", "lo", state], check=True, timeout=20)


def work(rank: int, size: int, uid: bytes) -> str:
    with mori.init(
        uid=uid, rank=rank, world_size=size, device="cpu", timeout=6, heap_bytes=64 << 20, transport="ibgda"
    ) as ctx:
        shm = mori.shmem.Shmem(ctx)
        inbox = shm.zeros((4 << 20,), torch.float32)
        shm.barrier()
        ctx.mesh.barrier()
        said = ""
        if rank == 0:
            start = time.monotonic()
            try:
                for number in range(100):
                    if number == 3:
                        link("down")
                    shm.put(inbox, torch.ones(4 << 20), 1)
            except TransportError as error:
                said = f"{time.monotonic() - start:.1f} {error}"
            link("up")
        ctx.mesh.barrier(timeout=50)
        return said


if __name__ == "__main__":
    link("up")
    print(run_ranks(work, 2, timeout=70)[0])
