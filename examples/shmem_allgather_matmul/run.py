# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""All-gather and matrix product in one kernel of one's own, allgather_matmul.cpp, compared with torch.

    python examples/shmem_allgather_matmul/run.py                   # 4 processes on this machine's CPU
    python examples/shmem_allgather_matmul/run.py --ranks 2 --device cuda --rows 2048 --depth 4096 --columns 4096

Each rank holds some rows of A and a B of its own; it gets all rows of A times its B. The rows travel in chunks, and a
chunk is multiplied as soon as its signal has come. Without a GPU for each rank they share those there are.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from pathlib import Path

import torch
from mori.shmem.structs import World
from mori.testing import run_ranks

import mori

SOURCE = Path(__file__).parent / "allgather_matmul.cpp"


class Args(ctypes.Structure):
    """struct AllgatherMatmulArgs."""

    _fields_ = (
        ("world", World),
        *((name, ctypes.c_uint64) for name in ("a", "b", "c", "gathered", "arrived", "taken", "state")),
        *((name, ctypes.c_uint32) for name in ("rows", "depth", "columns", "chunks", "senders")),
    )


class AllgatherMatmul:
    """c = allgather_matmul(a, b) for one shape of `a`. Collective; calls are too."""

    def __init__(self, ctx: mori.Context, rows: int, depth: int, *, chunks: int = 4) -> None:
        self.ctx, self.rows, self.depth, self.chunks = ctx, rows, depth, min(chunks, rows)
        self.gathered = ctx.empty((ctx.world_size, rows, depth), torch.float32)
        self.arrived = ctx.empty((ctx.world_size, self.chunks), torch.int64, fill=0)
        self.taken = ctx.empty((ctx.world_size,), torch.int64, fill=0)
        self.state = torch.zeros(2, dtype=torch.int64, device=ctx.device)
        self.kernel = mori.compile_kernel(SOURCE, device=ctx).kernel("allgather_matmul")
        lanes = ctx.core_device.properties.warp_size
        self.warps = max(1, 256 // lanes) if lanes > 1 else 1
        # they wait for each other, those of ranks that share a GPU included
        most = self.kernel.max_blocks(warps=self.warps, shared_bytes=4) // ctx.ranks_on_device
        self.blocks = 4 if ctx.synchronous else min(most, ctx.core_device.properties.processors)

    def __call__(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        columns = b.shape[1]
        assert a.shape == (self.rows, self.depth) and b.shape[0] == self.depth and a.dtype == b.dtype == torch.float32
        a, b = a.contiguous(), b.contiguous()
        c = torch.empty((self.ctx.world_size * self.rows, columns), device=a.device)
        pointers = (t.data_ptr() for t in (a, b, c, self.gathered, self.arrived, self.taken, self.state))
        senders = max(1, self.blocks // 4)
        args = Args(self.ctx.world, *pointers, self.rows, self.depth, columns, self.chunks, senders)
        self.kernel.launch(args, blocks=self.blocks, warps=self.warps, shared_bytes=4)
        return c


def rank_main(rank: int, world_size: int, uid: bytes, options: argparse.Namespace) -> tuple[float, float]:
    """The largest relative difference to torch, and seconds of a call."""
    torch.set_num_threads(1)
    device = options.device
    if device == "cuda":
        device = f"cuda:{rank % torch.cuda.device_count()}"
        torch.cuda.set_device(device)
    shards = [
        torch.randn(options.rows, options.depth, generator=torch.Generator().manual_seed(r)) for r in range(world_size)
    ]
    b = torch.randn(options.depth, options.columns, generator=torch.Generator().manual_seed(1000 + rank))
    heap_bytes = 4 * world_size * options.rows * options.depth + (4 << 20)
    with mori.init(uid=uid, rank=rank, world_size=world_size, device=device, heap_bytes=heap_bytes) as ctx:
        b = b.to(ctx.device)
        operator = AllgatherMatmul(ctx, options.rows, options.depth, chunks=options.chunks)
        ctx.barrier()
        worst = seconds = 0.0
        for round_ in range(options.rounds):
            scale = 1 + round_  # other rows in every round: what is left of the last one shows
            start = time.perf_counter()
            c = operator((scale * shards[rank]).to(ctx.device), b)
            ctx.synchronize()
            seconds = time.perf_counter() - start
            expected = scale * (torch.cat(shards).double() @ b.cpu().double())
            worst = max(worst, float((c.cpu() - expected).abs().max() / expected.abs().max()))
        ctx.barrier()
        return worst, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rows", type=int, default=67, help="of A on each rank")
    parser.add_argument("--depth", type=int, default=96)
    parser.add_argument("--columns", type=int, default=130)
    parser.add_argument("--chunks", type=int, default=4, help="of a rank's rows")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    for rank, (worst, seconds) in enumerate(run_ranks(rank_main, options.ranks, options, timeout=120)):
        print(f"rank {rank}: largest relative difference {worst:.1e}, last call {seconds * 1e3:.2f} ms")
        if not worst < 1e-5:
            raise SystemExit("the kernel gives another result than torch")
    print("verified: every rank has all rows of A times its B")


if __name__ == "__main__":
    main()
