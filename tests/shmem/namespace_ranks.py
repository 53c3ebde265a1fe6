# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Two ranks in two network namespaces joined by a cable, as two hosts are. Run by test_namespaces.py as the root of a
user namespace: this process is rank 0 in one network, its child rank 1 in another."""

from __future__ import annotations

import subprocess
import sys
import time

import mori.shmem
import torch
from mori.errors import MoriError

import mori

ADDRESSES = ("10.77.0.1", "10.77.0.2")
WORDS = 1 << 20


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=20)


def plug(rank: int) -> None:
    ip("addr", "add", f"{ADDRESSES[rank]}/24", "dev", f"cable{rank}")
    ip("link", "set", f"cable{rank}", "up")


def work(rank: int, uid: bytes) -> None:
    peer = 1 - rank
    with mori.init(uid=uid, rank=rank, world_size=2, device="cpu", timeout=8, heap_bytes=16 << 20) as ctx:
        assert ctx.transport == "mixed" and ctx.mesh.address == ADDRESSES[rank], ctx
        shm = mori.shmem.Shmem(ctx)
        inbox, signal, word = (
            shm.zeros((WORDS,), torch.float32),
            shm.zeros((1,), torch.int64),
            shm.zeros((1,), torch.int64),
        )
        shm.barrier()
        shm.put_signal(inbox, torch.full((WORDS,), 1.0 + rank), signal, 7, peer)
        shm.signal_wait_until(signal, "eq", 7)
        assert torch.equal(inbox, torch.full((WORDS,), 1.0 + peer))
        back = torch.zeros(WORDS)
        shm.get(back, inbox, peer)
        assert torch.equal(back, torch.full((WORDS,), 1.0 + rank))
        for _ in range(100):
            shm.atomic_fetch_add(word, 1 + rank, 0)
        shm.barrier()
        assert int(shm.atomic_fetch(word, 0)) == 300
        shm.barrier()
        ctx.mesh.barrier("both")
        if rank == 1:
            time.sleep(1)  # the cable is pulled meanwhile
            return
        start = time.monotonic()
        try:
            for number in range(1000):
                if number == 3:
                    ip("link", "set", "cable0", "down")
                shm.put(inbox, back, peer)
        except MoriError as error:
            print(f"{time.monotonic() - start:.1f} {type(error).__name__} {error}", flush=True)


def main() -> None:
    ip("link", "set", "lo", "up")
    if sys.argv[1:] == ["rank1"]:
        uid = bytes.fromhex(sys.stdin.readline())
        plug(1)
        work(1, uid)
        return
    command = ["unshare", "-n", sys.executable, __file__, "rank1"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        own = subprocess.run(["readlink", "/proc/self/ns/net"], capture_output=True, check=True).stdout
        while subprocess.run(["readlink", f"/proc/{other.pid}/ns/net"], capture_output=True, check=True).stdout == own:
            time.sleep(0.01)  # until it is in its network
        ip("link", "add", "cable0", "type", "veth", "peer", "name", "cable1", "netns", str(other.pid))
        plug(0)
        uid = mori.unique_id(host=ADDRESSES[0])
        other.stdin.write(uid.hex() + "\n")
        other.stdin.flush()
        try:
            work(0, uid)
        finally:
            other.kill()


if __name__ == "__main__":
    main()
