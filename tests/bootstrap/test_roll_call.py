# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Ranks agree on who is here without parting, and whoever was away comes back."""

import os
import random
import signal
import time

import pytest
from boot_helpers import MODES, join, refusal
from mori.errors import PeerLost, TimeoutError
from mori.testing import run_ranks

pytestmark = pytest.mark.timeout(60)


def everyone_work(rank, world_size, uid):
    mesh = join(rank, world_size, uid)
    here = [mesh.roll_call(timeout=20) for _ in range(3)]
    mesh.barrier()
    return here


@pytest.mark.parametrize("mode", MODES)
def test_everyone_is_here(mode):
    assert run_ranks(everyone_work, 3, mode=mode) == [[(0, 1, 2)] * 3] * 3


def away_work(rank, world_size, uid, folder):
    """Rank 1 comes when the others have decided; their exchanges without it fail meanwhile."""
    mesh = join(rank, world_size, uid)
    told = []
    for turn in range(2):
        decided = folder / f"decided{turn}"
        if rank == 1:
            while not decided.exists():
                time.sleep(0.01)
            seen = [refusal(lambda: mesh.roll_call(timeout=20)) for _ in range(2)]
        else:
            seen = [mesh.roll_call(timeout=20, without={1}), refusal(lambda: mesh.exchange("lonely", timeout=0.2))]
            decided.touch()
        payloads = mesh.reunite(b"%d.%d" % (rank, turn), timeout=30)
        mesh.barrier("together")
        told.append((seen, payloads, mesh.roll_call(timeout=20)))
    return told


@pytest.mark.parametrize("mode", MODES)
def test_a_rank_that_was_away_comes_back(mode, tmp_path):
    for rank, told in enumerate(run_ranks(away_work, 3, tmp_path, mode=mode)):
        for turn, ((first, second), payloads, together) in enumerate(told):
            if rank == 1:
                assert isinstance(first, PeerLost) and "ranks [0, 2] went on without rank 1" in str(first)
                assert str(second) == str(first)
            else:
                assert first == (0, 2)
                assert isinstance(second, TimeoutError) and second.peer == 1
            assert payloads == [b"%d.%d" % (r, turn) for r in range(3)]
            assert together == (0, 1, 2)


def in_vain_work(rank, world_size, uid, folder):
    """Rank 0 asks for all too early, and once more."""
    mesh, early = join(rank, world_size, uid), folder / "early"
    if rank == 0:
        error = refusal(lambda: mesh.reunite(timeout=0.3))
        early.touch()
    while not early.exists():
        time.sleep(0.01)
    mesh.reunite(timeout=20)
    mesh.barrier()
    return error.missing if rank == 0 else None


def test_reunite_names_who_is_missing_and_can_be_called_again(tmp_path):
    assert run_ranks(in_vain_work, 3, tmp_path)[0] == (1, 2)


def victims(seed):
    return random.Random(seed).sample(range(1, 4), 2)


def deaths_work(rank, world_size, uid, seed):
    """In each roll one more rank dies, before it or in the middle of it. Whoever returns has one answer."""
    chance, order = random.Random(seed), victims(seed)
    delays = [chance.random() * 0.02 for _ in range(2 * world_size)]
    mesh, here = join(rank, world_size, uid), []
    mesh.barrier()
    for roll, victim in enumerate(order):
        time.sleep(delays[roll * world_size + rank])
        if rank == victim and delays[rank] < 0.01:
            os.kill(os.getpid(), signal.SIGKILL)
        here.append(mesh.roll_call(timeout=20, without=order[: roll + 1] if rank == 0 else ()))
        if rank == victim:
            os.kill(os.getpid(), signal.SIGKILL)
    return here


@pytest.mark.parametrize("seed", range(6))
def test_deaths_leave_one_answer(seed):
    dead = victims(seed)
    alive = set(range(4)) - set(dead)
    results = [here for here in run_ranks(deaths_work, 4, seed, expendable=dead, timeout=50) if here]
    assert len(results) == 2 and results[0] == results[1]
    first, second = map(set, results[0])
    assert alive <= first
    assert alive <= second <= alive | {dead[1]}
