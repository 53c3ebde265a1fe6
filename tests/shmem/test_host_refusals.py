# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Calls of mori.shmem that cannot be right are refused with a ConfigError that says what is wrong, before anything is
sent: the Shmem goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import mori.shmem
import pytest
import torch
from mori.errors import CapacityError, ConfigError
from mori.testing import run_ranks

import mori

Make = Callable[[Any, dict[str, torch.Tensor]], Any]

REFUSALS: dict[str, tuple[Make, str]] = {
    "pe-too-large": (lambda s, t: s.put(t["f"], t["x"], 1), r"pe=1 is not in 0\.\.0"),
    "pe-negative": (lambda s, t: s.put(t["f"], t["x"], -1), r"pe=-1 is not in"),
    "pe-not-an-integer": (lambda s, t: s.get(t["x"], t["f"], 0.5), r"pe=0\.5 is not an integer"),
    "pe-true": (lambda s, t: s.signal_op(t["i"], 1, True), r"pe=True is not an integer"),
    "from-pe": (lambda s, t: s.wait_until(t["i"], "eq", 0, from_pe=3), r"from_pe=3"),
    "put-not-symmetric": (lambda s, t: s.put(t["x"], t["x"], 0), r"dst at 0x.* is not symmetric"),
    "get-not-symmetric": (lambda s, t: s.get(t["f"], t["x"], 0), r"src at 0x.* is not symmetric"),
    "not-a-tensor": (lambda s, t: s.put(t["f"], [1.0] * 4, 0), r"src must be a torch tensor, got list"),
    "other-device": (lambda s, t: s.put(t["f"], t["meta"], 0), r"src is on meta, the context on cpu"),
    "other-dtype": (lambda s, t: s.put(t["f"], t["x"].double(), 0), r"dst is torch\.float32, src torch\.float64"),
    "other-size": (lambda s, t: s.put(t["f"], t["x"][:3], 0), r"dst has 4 elements, src 3: dst must have 3"),
    "put-strided": (lambda s, t: s.put(t["wide"][:, 0], t["x"], 0), r"dst has strides \(2,\); it must be contiguous"),
    "source-strided": (lambda s, t: s.put(t["f"], torch.ones(8)[::2], 0), r"src has strides"),
    "signal-dtype": (lambda s, t: s.signal_op(t["f"][0], 1, 0), r"signal is torch\.float32; allowed: int64, uint64"),
    "signal-of-two": (lambda s, t: s.signal_op(t["i2"], 1, 0), r"signal has 2 elements; it must have one"),
    "signal-of-none": (lambda s, t: s.signal_fetch(t["i2"][:0]), r"signal has 0 elements"),
    "signal-not-symmetric": (lambda s, t: s.put_signal(t["f"], t["x"], t["local"], 1, 0), r"signal at 0x.* symmetric"),
    "signal-negative": (lambda s, t: s.signal_op(t["i"], -1, 0), r"value=-1 is not in"),
    "signal-too-large": (lambda s, t: s.signal_op(t["i"], 2**64, 0), r"value=18446744073709551616"),
    "signal-operation": (lambda s, t: s.signal_op(t["i"], 1, 0, op="sub"), r"op='sub': allowed are set, add"),
    "comparison": (lambda s, t: s.wait_until(t["i"], "=~", 1), r"cmp='=~': allowed are eq, ne, gt, ge, lt, le"),
    "comparison-number": (lambda s, t: s.test(t["i"], 3, 1), r"cmp=3: allowed"),
    "wait-dtype": (lambda s, t: s.wait_until(t["f"][0], "eq", 1), r"tensor is torch\.float32; allowed: int32, int64"),
    "wait-value": (lambda s, t: s.wait_until(t["w"], "eq", 2**31), r"value=2147483648 does not fit torch\.int32"),
    "atomic-dtype": (lambda s, t: s.atomic_add(t["b"], 1, 0), r"dst is torch\.uint8; allowed: int32, int64"),
    "atomic-of-four": (lambda s, t: s.atomic_add(t["f"], 1, 0), r"dst has 4 elements"),
    "atomic-bits-of-floats": (lambda s, t: s.atomic_or(t["f"][0], 1, 0), r"dst is torch\.float32; allowed"),
    "atomic-cas-of-floats": (lambda s, t: s.atomic_compare_swap(t["f"][0], 1, 2, 0), r"dst is torch\.float32; allowed"),
    "atomic-value": (lambda s, t: s.atomic_set(t["i"], 1.5, 0), r"value=1\.5 is not an integer"),
    "atomic-condition": (lambda s, t: s.atomic_compare_swap(t["w"], 2**40, 1, 0), r"cond=1099511627776 does not fit"),
    "atomic-large-float": (lambda s, t: s.atomic_set(t["f"][0], 1e300, 0), r"value=1e\+300 does not fit"),
    "atomic-text": (lambda s, t: s.atomic_set(t["f"][0], "1", 0), r"value='1' is not a number"),
    "out-dtype": (
        lambda s, t: s.atomic_fetch(t["i"], 0, out=t["x"][0]),
        r"out is torch\.float32; allowed: torch\.int64",
    ),
    "out-of-four": (lambda s, t: s.atomic_fetch(t["f"][0], 0, out=t["x"]), r"out has 4 elements"),
    "out-of-test": (lambda s, t: s.test(t["i"], "eq", 0, out=t["local"]), r"out is torch\.int64; allowed: torch\.bool"),
    "stream-on-a-cpu": (lambda s, t: s.quiet(stream=7), r"stream=7: calls on the CPU have no stream"),
    "collective-size": (lambda s, t: s.fcollect(t["f"], t["x"][:2]), r"dst has 4 elements, src 2: dst must have 2"),
    "collective-not-symmetric": (lambda s, t: s.broadcast(t["x"], t["x"], 0), r"dst at 0x.* is not symmetric"),
    "root": (lambda s, t: s.broadcast(t["f"], t["x"], 1), r"root=1 is not in 0\.\.0"),
    "reduce-dtype": (lambda s, t: s.sum_reduce(t["bool"], t["bool"]), r"dst is torch\.bool; allowed: int32"),
    "reduce-bits-of-floats": (lambda s, t: s.xor_reduce(t["f"], t["x"]), r"dst is torch\.float32; allowed: int32"),
    "team-none": (lambda s, t: s.barrier(None), r"team=None: this PE is not a member"),
    "team-number": (lambda s, t: s.sync(3), r"team=3 is neither 'world' nor a team"),
    "team-start": (lambda s, t: s.team_split_strided(s.team_world, 1, 1, 1), r"start=1 is not in 0\.\.0"),
    "team-size": (lambda s, t: s.team_split_strided(s.team_world, 0, 1, 2), r"size=2 is not in 1\.\.1"),
    "team-xrange": (lambda s, t: s.team_split_2d(s.team_world, 0), r"xrange=0 is not in"),
    "team-world-closed": (lambda s, t: s.team_world.close(), r"the team of all PEs lives as long"),
    "shmem-teams": (lambda s, t: mori.shmem.Shmem(s.context, max_teams=64), r"max_teams=64 is not in 2\.\.63"),
    "shmem-workspace": (lambda s, t: mori.shmem.Shmem(s.context, workspace_bytes=8), r"workspace_bytes=8 is not in"),
    "peer": (lambda s, t: s.peer(t["f"], 4), r"pe=4"),
    "peer-not-symmetric": (lambda s, t: s.peer(t["x"], 0), r"not in this rank's symmetric heap"),
}


@pytest.fixture(scope="module")
def alone() -> Iterator[tuple[Any, dict[str, torch.Tensor]]]:
    uid = mori.unique_id()
    with (
        mori.init(uid=uid, rank=0, world_size=1, device="cpu", heap_bytes=1 << 20) as ctx,
        mori.shmem.Shmem(ctx) as shm,
    ):
        yield (
            shm,
            {
                "f": shm.zeros((4,), torch.float32),
                "wide": shm.zeros((4, 2), torch.float32),
                "i": shm.zeros((1,), torch.int64),
                "i2": shm.zeros((2,), torch.int64),
                "w": shm.zeros((1,), torch.int32),
                "b": shm.zeros((1,), torch.uint8),
                "bool": shm.zeros((4,), torch.bool),
                "x": torch.ones(4),
                "local": torch.zeros(1, dtype=torch.int64),
                "meta": torch.ones(4, device="meta"),
            },
        )


@pytest.mark.parametrize("name", REFUSALS)
def test_refused(alone: tuple[Any, dict[str, torch.Tensor]], name: str) -> None:
    shm, tensors = alone
    call, words = REFUSALS[name]
    with pytest.raises(ConfigError, match=words):
        call(shm, tensors)
    shm.put(tensors["f"], tensors["x"], 0)  # it goes on
    assert tensors["f"].tolist() == [1.0] * 4


def test_there_are_enough() -> None:
    assert len(REFUSALS) >= 25


def between_two(rank: int, size: int, uid: bytes) -> None:
    with mori.init(uid=uid, rank=rank, world_size=size, device="cpu", timeout=20, heap_bytes=1 << 20) as ctx:
        with pytest.raises(ConfigError, match="max_teams differs between ranks: rank 0 has 4, rank 1 has 5"):
            mori.shmem.Shmem(ctx, max_teams=4 + rank)
        with mori.shmem.Shmem(ctx, max_teams=3) as shm, mori.shmem.Shmem(ctx) as other:
            world = shm.team_world
            mine = shm.zeros((2,), torch.int64)
            with pytest.raises(ConfigError, match=r"is rank 1's memory|is rank 0's memory"):
                shm.put(shm.peer(mine, 1 - rank), torch.zeros(2, dtype=torch.int64), 0)
            with pytest.raises(ConfigError, match="2 members do not share equally"):
                shm.alltoall(mine[:1], torch.zeros(1, dtype=torch.int64))
            with pytest.raises(ConfigError, match="the team is another Shmem's"):
                shm.barrier(other.team_world)
            with pytest.raises(ConfigError, match="start=1, stride=1, size=2: the last member would be 2"):
                shm.team_split_strided(world, 1, 1, 2)
            with pytest.raises(ConfigError, match="team asked for differs between ranks"):
                shm.team_split_strided(world, 0, 1, 1 + rank)
            with pytest.raises(
                ConfigError, match=r"there are \d+ open mori.shmem.Shmem and no tensor or team says which"
            ):
                mori.shmem.quiet()
            taken = [shm.team_split_strided(world, 0, 1, 2) for _ in range(2)]
            with pytest.raises(CapacityError, match="no slot is free"):
                shm.team_split_strided(world, 0, 1, 2)
            first = taken[0]
            assert first is not None
            first.close()
            first.close()
            with pytest.raises(ConfigError, match="the team is closed"):
                shm.barrier(first)
            assert shm.team_split_strided(world, 0, 1, 1) is None or rank == 0
        with pytest.raises(ConfigError, match="the Shmem is closed"):
            shm.barrier()
        ctx.barrier()


@pytest.mark.timeout(60)
def test_between_two() -> None:
    run_ranks(between_two, 2, timeout=40)
