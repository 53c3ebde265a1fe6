# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What ranks do in the tests of mori.shmem's host operations, on a CPU or a GPU. Each case gets a Shmem, leaves the
ranks in step, and raises if anything is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mori.shmem
import torch

import mori

CASES: dict[str, Callable[[mori.shmem.Shmem], None]] = {}


def case(work: Callable[[mori.shmem.Shmem], None]) -> Callable[[mori.shmem.Shmem], None]:
    CASES[work.__name__] = work
    return work


def run_cases(rank: int, size: int, uid: bytes, device: str = "cpu", **options: Any) -> None:
    """All cases on one rank."""
    with mori.init(
        uid=uid, rank=rank, world_size=size, device=device, timeout=30, heap_bytes=8 << 20, **options
    ) as ctx:
        with mori.shmem.Shmem(ctx) as shm:
            for name, work in CASES.items():
                try:
                    work(shm)
                    shm.barrier()
                    ctx.synchronize()
                except Exception as error:
                    error.add_note(f"in case {name}")
                    raise
        ctx.barrier()


def equal(got: torch.Tensor, wanted: torch.Tensor) -> None:
    assert torch.equal(got.cpu(), wanted.cpu()), (got, wanted)


def sample(shm: mori.shmem.Shmem, count: int, seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The same numbers for the same seed on every rank; small whole ones, so that sums are exact in any dtype."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 7, (count,), generator=generator).to(dtype).to(shm.context.device)


@case
def put_and_get(shm: mori.shmem.Shmem) -> None:
    me, n = shm.my_pe, shm.n_pes
    for count in (0, 1, 3, 4096, 100_003):
        inbox = shm.zeros((n, max(count, 1)), torch.float32)
        mine = sample(shm, count, me)
        for pe in range(n):
            shm.put(inbox[me, :count], mine, pe)
            shm.fence()
        shm.barrier()
        for pe in range(n):
            equal(inbox[pe, :count], sample(shm, count, pe))
        copy = torch.empty_like(mine)
        for pe in range(n):
            shm.get(copy, inbox[pe, :count], pe)  # of pe's own inbox
            shm.quiet()
            equal(copy, sample(shm, count, pe))
        shm.barrier()


@case
def dtypes_and_views(shm: mori.shmem.Shmem) -> None:
    me, n = shm.my_pe, shm.n_pes
    for dtype in (torch.uint8, torch.bool, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.complex64):
        inbox = shm.zeros((2, 3, 5), dtype)
        mine = sample(shm, 15, me, torch.float32).to(dtype).view(3, 5)
        shm.put(inbox[1], mine, (me + 1) % n)
        shm.barrier()
        wanted = sample(shm, 15, (me - 1) % n, torch.float32).to(dtype).view(3, 5)
        equal(inbox[1].view(torch.uint8), wanted.view(torch.uint8))
        equal(shm.peer(inbox, me).view(torch.uint8), inbox.view(torch.uint8))
        shm.barrier()


@case
def signals(shm: mori.shmem.Shmem) -> None:
    me, n = shm.my_pe, shm.n_pes
    left, right = (me - 1) % n, (me + 1) % n
    inbox, arrived, taken = shm.zeros((64,), torch.int32), shm.zeros((2,), torch.int64), shm.zeros((1,), torch.int64)
    for number in range(1, 30):
        shm.signal_wait_until(taken, ">=", number - 1, from_pe=right)
        mine = torch.full((64,), 100 * me + number, dtype=torch.int32, device=shm.context.device)
        shm.put_signal(inbox, mine, arrived[0], number, right)
        shm.put_signal(inbox[:0], mine[:0], arrived[1], 2, right, op=mori.shmem.SignalOp.add)
        shm.signal_wait_until(arrived[0], mori.shmem.Cmp.ge, number, from_pe=left)
        assert inbox.tolist() == [100 * left + number] * 64
        shm.signal_wait_until(arrived[1:], "eq", 2 * number)
        shm.signal_op(taken, number, left)
    assert shm.signal_fetch(arrived[0]) == 29
    out = torch.zeros(1, dtype=torch.int64, device=shm.context.device)
    assert shm.signal_fetch(arrived[1], out=out) is None
    assert out.item() == 58
    shm.barrier()
    shm.signal_op(arrived[1], 2**64 - 58, right, op="add")  # wraps
    shm.signal_wait_until(arrived[1], "==", 0)


@case
def atomics(shm: mori.shmem.Shmem) -> None:
    me, n = shm.my_pe, shm.n_pes
    for dtype in (torch.int32, torch.int64, torch.uint32, torch.uint64, torch.float32, torch.float64):
        word = shm.zeros((3,), dtype)  # neighbours must stay 0
        dst = word[1]
        tickets = {shm.atomic_fetch_inc(dst, 0) for _ in range(10)}
        assert len(tickets) == 10
        shm.atomic_add(dst, 5, 0)
        shm.atomic_inc(dst, 0)
        shm.barrier()
        assert shm.atomic_fetch(dst, 0) == 16 * n
        shm.barrier()
        right = (me + 1) % n  # nobody else touches that one from here on
        before = 16 * n if right == 0 else 0
        assert shm.atomic_swap(dst, 12, right) == before
        out = torch.zeros(1, dtype=dtype, device=shm.context.device)
        assert shm.atomic_fetch_add(dst, 3, right, out=out) is None
        assert out.item() == 12
        if not dtype.is_floating_point:
            assert shm.atomic_compare_swap(dst, 14, 1, right) == 15
            assert shm.atomic_compare_swap(dst, 15, 0b1100, right) == 15
            assert shm.atomic_fetch_and(dst, 0b0110, right) == 0b1100
            assert shm.atomic_fetch_or(dst, 0b0011, right) == 0b0100
            assert shm.atomic_fetch_xor(dst, 0b0101, right) == 0b0111
            shm.atomic_or(dst, 0b1000, right)
            shm.atomic_xor(dst, 0b1111, right)
            shm.atomic_and(dst, 0b0101, right)
            assert shm.atomic_fetch(dst, right) == 0b0101
        shm.atomic_set(dst, 9, right)
        shm.barrier()
        assert [float(x) for x in word.tolist()] == [0, 9, 0]
        shm.barrier()
        if dtype.is_signed:
            shm.atomic_set(dst, -7, right)
            assert shm.atomic_fetch(dst, right) == -7
        shm.barrier()


@case
def waits_and_tests(shm: mori.shmem.Shmem) -> None:
    me, n = shm.my_pe, shm.n_pes
    left, right = (me - 1) % n, (me + 1) % n
    for dtype in (torch.int32, torch.int64, torch.uint32, torch.uint64):
        word = shm.full((2,), 5, dtype)
        for cmp, value, holds in (("eq", 5, 1), ("!=", 5, 0), ("gt", 4, 1), (">=", 6, 0), ("lt", 6, 1), ("<=", 4, 0)):
            assert shm.test(word[0], cmp, value) is bool(holds), (dtype, cmp)
        out = torch.zeros(1, dtype=torch.bool, device=shm.context.device)
        shm.test(word[0], "lt", 6, out=out)
        assert out.item() is True
        low = -1 if dtype.is_signed else 0
        assert shm.test(word[1], "gt", low)
        shm.barrier()
        shm.atomic_set(word[0], 8, right)
        shm.wait_until(word[0], "gt", 5, from_pe=left)
        assert word[0].item() == 8
        shm.barrier()


@case
def collectives(shm: mori.shmem.Shmem) -> None:
    me, n = shm.my_pe, shm.n_pes
    for count in (0, 1, 5, 1000, 50_000):
        everyone = [sample(shm, n * count, pe) for pe in range(n)]
        gathered = shm.zeros((n * count + 1,), torch.float32)[: n * count]
        shm.fcollect(gathered, everyone[me][:count])
        equal(gathered, torch.cat([mine[:count] for mine in everyone]))
        shm.barrier()
        shm.alltoall(gathered, everyone[me])
        equal(gathered, torch.cat([mine[me * count : (me + 1) * count] for mine in everyone]))
        for root in range(n):
            shm.barrier()
            shm.broadcast(gathered, everyone[me], root)
            equal(gathered, everyone[root])
        shm.barrier()


INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@case
def reductions(shm: mori.shmem.Shmem) -> None:
    me, n = shm.my_pe, shm.n_pes
    for dtype in INTEGERS + FLOATS:
        for count in (0, 1, 7, 3001):
            everyone = [sample(shm, count, 10 + pe).to(dtype) for pe in range(n)]
            stack = torch.stack(everyone).to(torch.float64 if dtype.is_floating_point else torch.int64)
            dst = shm.zeros((count + 1,), dtype)[:count]
            wanted = {"sum": stack.sum(0), "prod": stack.prod(0)}
            if count:
                wanted |= {"min": stack.amin(0), "max": stack.amax(0)}
            for name, result in wanted.items():
                getattr(shm, f"{name}_reduce")(dst, everyone[me])
                equal(dst, result.to(dtype))
                shm.barrier()
            dst.copy_(everyone[me])
            shm.barrier()
            shm.sum_reduce(dst, dst)  # in place
            equal(dst, wanted["sum"].to(dtype))
            shm.barrier()
    for dtype in INTEGERS:
        everyone = [sample(shm, 100, 20 + pe).to(dtype) for pe in range(n)]
        dst = shm.zeros((100,), dtype)
        for name, operator in (("and", torch.bitwise_and), ("or", torch.bitwise_or), ("xor", torch.bitwise_xor)):
            wanted_bits = everyone[0]
            for other in everyone[1:]:
                wanted_bits = operator(wanted_bits, other)
            getattr(shm, f"{name}_reduce")(dst, everyone[me])
            equal(dst, wanted_bits)
            shm.barrier()


@case
def floats_give_equal_bits_on_all(shm: mori.shmem.Shmem) -> None:
    for dtype in FLOATS:
        mine = torch.randn(999, generator=torch.Generator().manual_seed(shm.my_pe)).to(dtype).to(shm.context.device)
        dst, all_of_them = shm.zeros((999,), dtype), shm.zeros((shm.n_pes, 999), dtype)
        shm.sum_reduce(dst, mine)
        shm.fcollect(all_of_them, dst)
        for other in all_of_them:
            equal(other.view(torch.uint8), all_of_them[0].view(torch.uint8))
        shm.barrier()


@case
def teams(shm: mori.shmem.Shmem) -> None:
    me, n = shm.my_pe, shm.n_pes
    world = shm.team_world
    assert (world.my_pe, world.n_pes) == (me, n)
    for _ in range(3):  # slots come back
        even = shm.team_split_strided(world, 0, 2, (n + 1) // 2)
        assert (even is not None) == (me % 2 == 0)
        if even is not None:
            assert [even.pe(i) for i in range(even.n_pes)] == list(range(0, n, 2))
            assert shm.team_translate_pe(even, even.my_pe, world) == me
        for pe in range(n):
            if even is not None:
                assert shm.team_translate_pe(world, pe, even) == (pe // 2 if pe % 2 == 0 else -1)
        word = shm.zeros((1,), torch.int64)
        if even is not None:
            mine = torch.tensor([me + 1], device=shm.context.device)
            shm.sum_reduce(word, mine, team=even)
            assert word.item() == sum(pe + 1 for pe in range(0, n, 2))
            last = shm.team_split_strided(even, even.n_pes - 1, 1, 1)  # of the last alone
            assert (last is not None) == (even.my_pe == even.n_pes - 1)
            if last is not None:
                shm.barrier(last)
                last.close()
            even.close()
        row, column = shm.team_split_2d(world, 2)
        assert row is not None and column is not None
        assert [row.pe(i) for i in range(row.n_pes)] == [pe for pe in range(n) if pe // 2 == me // 2]
        assert [column.pe(i) for i in range(column.n_pes)] == [pe for pe in range(n) if pe % 2 == me % 2]
        for team in (row, column):
            gathered = shm.zeros((n,), torch.int32)
            shm.fcollect(
                gathered[: team.n_pes], torch.tensor([me], dtype=torch.int32, device=gathered.device), team=team
            )
            assert gathered.tolist()[: team.n_pes] == [team.pe(i) for i in range(team.n_pes)]
            shm.sync(team)
            team.close()
        assert shm.team_split_strided(None, 0, 1, 1) is None


@case
def functions_find_their_shmem(shm: mori.shmem.Shmem) -> None:
    me, n = shm.my_pe, shm.n_pes
    inbox, word = shm.zeros((4,), torch.float32), shm.zeros((1,), torch.int64)
    mori.shmem.put(inbox, torch.full((4,), float(me), device=inbox.device), pe=(me + 1) % n)
    mori.shmem.atomic_add(word, 1, 0)
    mori.shmem.barrier(shm.team_world)
    assert inbox.tolist() == [float((me - 1) % n)] * 4
    assert mori.shmem.atomic_fetch(dst=word, pe=0) == n
    mori.shmem.sync(team=shm.team_world)
