# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Triton kernels that use mori.shmem.triton, and what ranks do with them. Imported by ranks only, which say first
whether triton interprets."""

from __future__ import annotations

from typing import Any

import mori.shmem
import mori.shmem.triton as tshmem
import torch
import triton
import triton.language as tl
from mori.errors import TimeoutError

import mori

ROUNDS = 5


@triton.jit
def ring(world, inbox, arrived, taken, x, out, number, BLOCK: tl.constexpr):
    """`x` to the right, with a signal; what came from the left to `out`; and the left may send again."""
    me, n = tshmem.my_pe(world), tshmem.n_pes(world)
    left, right = (me + n - 1) % n, (me + 1) % n
    here = tl.arange(0, BLOCK)
    if tshmem.wait_until(world, taken, number - 1, right):
        tshmem.put(world, inbox + here, tl.load(x + here), right, mask=here < BLOCK - 1)
        tshmem.signal_set(world, arrived, number, right)
        if tshmem.wait_until(world, arrived, number, left):
            tl.store(out + here, tl.load(inbox + here))
            tshmem.signal_add(world, taken, 1, left)


@triton.jit
def all_to_all(world, team, words, wrong, rounds):
    """Each round a word to every member, checked behind a barrier. words: int64[2][n]; wrong: int64."""
    me, n = tshmem.my_pe(world), tshmem.n_pes(world)
    came = n > 0
    number = 1
    while (number <= rounds) & came:
        row = words + number % 2 * n
        for pe in range(n):
            tshmem.put(world, row + me, tl.full((), 0, tl.int64) + number, pe)
        came = tshmem.barrier(world, team)
        if came:
            for pe in range(n):
                seen = tshmem.get(world, row + pe, (me + 1) % n)
                tl.store(wrong, tl.load(wrong) + (seen != number).to(tl.int64))
        came = came & (tshmem.team_n_pes(team) == n) & (tshmem.team_my_pe(team) == me)
        number += 1
    tl.store(wrong + 1, number - 1)


@triton.jit
def wait(world, signal, value, from_pe, out):
    came = tshmem.wait_until(world, signal, value, from_pe)
    tl.store(out, came.to(tl.int64))


def run(ctx: Any, shm: Any) -> None:
    me, n, device = shm.my_pe, shm.n_pes, ctx.device
    world, team = tshmem.world(shm), tshmem.team(shm)
    inbox, arrived, taken = shm.zeros((256,), torch.float32), shm.zeros((1,), torch.int64), shm.zeros((1,), torch.int64)
    out = torch.zeros(256, device=device)
    for number in range(1, ROUNDS + 1):
        x = torch.arange(256, device=device) + 1000.0 * number + 10000 * me
        ring[(1,)](world, inbox, arrived, taken, x, out, number, BLOCK=256)
        ctx.synchronize()
        wanted = torch.arange(256) + 1000.0 * number + 10000 * ((me - 1) % n)
        wanted[255] = 0
        assert torch.equal(out.cpu(), wanted), number
    words, wrong = shm.zeros((2, n), torch.int64), torch.zeros(2, dtype=torch.int64, device=device)
    all_to_all[(1,)](world, team, words, wrong, ROUNDS)
    ctx.synchronize()
    assert wrong.tolist() == [0, ROUNDS]
    shm.barrier()  # the same epochs: Triton's barrier and the library's are one
    all_to_all[(1,)](world, team, words, wrong, 2)
    ctx.synchronize()
    assert wrong.tolist() == [0, 2]


def expire(ctx: Any, shm: Any) -> tuple[object, ...]:
    """A signal that nobody sets; before that one that is there."""
    word, out = shm.full((1,), 3, torch.int64), torch.full((1,), 7, dtype=torch.int64, device=ctx.device)
    world = tshmem.world(shm)
    wait[(1,)](world, word, 3, -1, out)
    ctx.synchronize()
    assert out.item() == 1
    wait[(1,)](world, word, 5, shm.my_pe, out)
    try:
        ctx.synchronize()
    except TimeoutError as error:
        return out.item(), error.what, error.peer, error.expected, error.seen
    raise AssertionError("the wait ended")


def on_rank(rank: int, size: int, uid: bytes, device: str, work: str, timeout: float) -> Any:
    with (
        mori.init(uid=uid, rank=rank, world_size=size, device=device, timeout=timeout, heap_bytes=1 << 20) as ctx,
        mori.shmem.Shmem(ctx) as shm,
    ):
        return globals()[work](ctx, shm)
