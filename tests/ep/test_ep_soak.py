# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Many calls in a row with other sizes and other bytes each, at ranks that come early or late; and epochs that have
counted far. Every call is compared bit for bit. `pytest -m long` runs the long one."""

from __future__ import annotations

import ctypes
import random
import time

import pytest
import torch
from ep_cases import Case, make, open_context, run_case, tokens_of
from mori.ep import Dispatcher
from mori.testing import run_ranks

SIZES = (5, 0, 33, 1, 64, 2, 17)
CASES = {
    "bf16": Case("soak", tokens=SIZES, max_tokens=64, topk=3, bias=True),
    "fp8": Case(
        "soak-fp8", dtype="float8_e4m3fn", scales=(3, "float32"), tokens=SIZES, max_tokens=64, apply_weights=True
    ),
    "grouped": Case(
        "soak-grouped", layout="grouped", align=4, tokens=SIZES, max_tokens=64, topk=3, apply_weights=True, bias=True
    ),
}


def soak(rank: int, world_size: int, uid: bytes, case: Case, rounds: int, longest_pause_s: float) -> str:
    dice = random.Random(rank)

    def pause() -> None:
        if dice.random() < 0.2:
            time.sleep(dice.random() * longest_pause_s)

    with open_context(rank, world_size, uid) as ctx:
        wrong = ""
        for first in range(0, rounds, 100):  # another seed for each hundred
            part = Case(**{**vars(case), "name": f"{case.name}{first}", "rounds": min(100, rounds - first)})
            wrong = wrong or run_case(ctx, part, pause=pause)
        return wrong


@pytest.mark.timeout(100)
@pytest.mark.parametrize("kind", CASES)
def test_300_pairs_with_delays(kind: str) -> None:
    assert run_ranks(soak, 4, CASES[kind], 300, 0.004, timeout=90) == [""] * 4


@pytest.mark.timeout(400)
def test_600_pairs() -> None:
    assert run_ranks(soak, 4, CASES["grouped"], 600, 0.0005, timeout=390) == [""] * 4


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", CASES)
def test_10000_pairs(kind: str) -> None:
    assert run_ranks(soak, 4, CASES[kind], 10_000, 0.0005, timeout=1700) == [""] * 4


def start_at(moe: Dispatcher, epoch: int) -> None:
    """Makes all counters of a fresh dispatcher stand at `epoch`. Collective."""
    moe._core.start_at(epoch, epoch)
    moe.ctx.mesh.barrier("start_at")


def far(rank: int, world_size: int, uid: bytes, epoch: int) -> list[str]:
    case = Case("far", rounds=6)
    with open_context(rank, world_size, uid) as ctx:
        wrong = [run_case(ctx, case, before=lambda moe: start_at(moe, epoch))]
        with make(ctx, case) as moe:  # the epochs do count on from there
            start_at(moe, epoch)
            sent = tokens_of(case, rank)
            recv = moe.dispatch(sent.x, sent.topk_ids)
            seen = (ctypes.c_uint64 * 2)()
            ctx.core_device.copy(ctypes.addressof(seen), moe._core.local_address, 16)
            if tuple(seen) != (epoch + 1, epoch):
                wrong.append(f"epochs are {tuple(seen)}")
            moe.combine(torch.ones_like(recv.x), recv.routing)
    return [text for text in wrong if text]


FAR = {f"2^{bits}": 2**bits - 3 for bits in (16, 24, 31, 32, 53, 63)}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("epoch", FAR.values(), ids=FAR)
def test_epochs_that_have_counted_far(epoch: int) -> None:
    assert run_ranks(far, 3, epoch, timeout=50) == [[]] * 3
