# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""All-gather and matrix product in one Triton kernel: each rank has some rows of A and all of B, and computes A @ B.

    python examples/shmem_triton_allgather_matmul.py --ranks 2              # a GPU each
    TRITON_INTERPRET=1 python examples/shmem_triton_allgather_matmul.py     # without a GPU, by triton's interpreter

Every program first puts its share of this rank's rows to all ranks, with a signal; then it multiplies tiles, this
rank's own rows first, waiting for a rank's rows only when it comes to them: transfers hide behind the products.
The programs wait for each other: no more of them than the GPU runs at once.
"""

from __future__ import annotations

import argparse

import mori.shmem
import mori.shmem.triton as tshmem
import torch
import triton
import triton.language as tl
from mori.testing import run_ranks

import mori

ROWS, DEPTH, COLUMNS, TILE = 128, 64, 64, 32  # ROWS: of each rank
LAUNCHES = 4


@triton.jit
def allgather_matmul(
    world,
    shard,  # [rows, depth]: this rank's rows of A
    gathered,  # symmetric, [2][ranks][rows][depth]: where ranks put theirs, by turns of two launches
    arrived,  # symmetric, int64[ranks]: how many programs of each rank have put their share, of all launches
    b,
    c,
    launch,  # 1, 2, 3, ...
    rows: tl.constexpr,
    depth: tl.constexpr,
    columns: tl.constexpr,
    TILE: tl.constexpr,
):
    me, n = tshmem.my_pe(world), tshmem.n_pes(world)
    program, programs = tl.program_id(0), tl.num_programs(0)
    place = gathered + (launch % 2) * n * rows * depth
    elements = rows * depth
    share = tl.cdiv(tl.cdiv(elements, programs), TILE * TILE) * TILE * TILE
    for ahead in range(n):
        pe = (me + 1 + ahead) % n
        for start in range(program * share, tl.minimum((program + 1) * share, elements), TILE * TILE):
            at = start + tl.arange(0, TILE * TILE)
            values = tl.load(shard + at, mask=at < elements)
            tshmem.put(world, place + me * elements + at, values, pe, mask=at < elements)
        tshmem.signal_add(world, arrived + me, 1, pe)

    of_rank: tl.constexpr = (rows // TILE) * (columns // TILE)
    came = n > 0
    for ahead in range(n):
        source = (me + ahead) % n  # my own rows are here already
        if came:
            came = tshmem.wait_until(world, arrived + source, tl.full((), 0, tl.int64) + launch * programs, source)
        if came:
            for tile in range(program, of_rank, programs):
                row = tile // (columns // TILE) * TILE + tl.arange(0, TILE)
                column = tile % (columns // TILE) * TILE + tl.arange(0, TILE)
                total = tl.zeros((TILE, TILE), tl.float32)
                for k in range(0, depth, TILE):
                    inner = k + tl.arange(0, TILE)
                    left = tl.load(place + source * elements + row[:, None] * depth + inner[None, :])
                    right = tl.load(b + inner[:, None] * columns + column[None, :])
                    total += tl.dot(left, right)
                tl.store(c + (source * rows + row[:, None]) * columns + column[None, :], total)


def work(rank: int, size: int, uid: bytes, interpreted: bool) -> float:
    device = "cpu" if interpreted else f"cuda:{rank % torch.cuda.device_count()}"
    if not interpreted:
        torch.cuda.set_device(device)
    with mori.init(uid=uid, rank=rank, world_size=size, device=device) as ctx, mori.shmem.Shmem(ctx) as shm:
        dtype = torch.float32 if interpreted else torch.bfloat16
        gathered, arrived = shm.empty((2, size, ROWS, DEPTH), dtype), shm.zeros((size,), torch.int64)
        world, c = tshmem.world(shm), torch.empty((size * ROWS, COLUMNS), device=ctx.device)
        busy = 1 if interpreted else torch.cuda.get_device_properties(device).multi_processor_count
        programs = max(1, busy // ctx.ranks_on_device)
        worst = 0.0
        for launch in range(1, LAUNCHES + 1):
            torch.manual_seed(launch)  # the same A and B on every rank, to compare with
            a = torch.randn(size, ROWS, DEPTH).to(dtype).to(ctx.device)
            b = torch.randn(DEPTH, COLUMNS).to(dtype).to(ctx.device)
            sizes = {"rows": ROWS, "depth": DEPTH, "columns": COLUMNS, "TILE": TILE}
            allgather_matmul[(programs,)](world, a[rank].contiguous(), gathered, arrived, b, c, launch, **sizes)
            ctx.synchronize()  # raises, naming the rank, if one did not come
            wanted = a.float().view(-1, DEPTH) @ b.float()
            worst = max(worst, float((c - wanted).abs().max()))
        assert worst < 1e-2, f"rank {rank} is wrong by {worst}"
        ctx.barrier()
        return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    ranks = parser.parse_args().ranks
    interpreted = bool(triton.knobs.runtime.interpret)
    worst = run_ranks(work, ranks, interpreted, mode="spawn", timeout=300)
    print(f"{ranks} ranks, {LAUNCHES} launches: right, at most {max(worst):.1e} off torch's product")


if __name__ == "__main__":
    main()
