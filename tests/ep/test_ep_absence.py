# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""on_loss="mask": a rank that dies or is stopped is left out by the next call, one that wakes later harms nobody and is
told, and is taken in again; all bit for bit as the reference has it for the ranks that take part."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from ep_cases import Case, expert_map, make, open_context, returned_rows, tokens_of
from ep_crew import Crew, refusal
from mori._dlpack import as_tensor
from mori.ep import Dispatcher, reference
from mori.ep.reference import first_difference
from mori.errors import ConfigError, PeerLost, TimeoutError
from mori.testing import run_ranks

pytestmark = pytest.mark.timeout(100)

CASE = Case("absence", topk=3, hidden=32)
STOPPED_S, KILLED_S = 3.0, 30.0  # the context's deadlines


def masking(ctx: Any, case: Case = CASE, **options: Any) -> Dispatcher:
    return make(ctx, case, on_loss="mask", **options)


def pair(moe: Dispatcher, gone: tuple[int, ...], round_: int, *, two_phase: bool = False) -> list[str]:
    """One dispatch and combine, compared with the reference for all ranks but those."""
    rank, world = moe.ctx.rank, moe.ctx.world_size
    active, placed = tuple(r for r in range(world) if r not in gone), expert_map(CASE, world)
    sent = [tokens_of(CASE, r, round_) for r in range(world)]
    matrix = reference.counts(sent, placed, active)
    returned = [returned_rows(CASE, r, int(matrix[:, r].sum()), round_) for r in range(world)]
    mine = sent[rank]
    if two_phase:
        recv = moe.dispatch_recv(moe.dispatch_send(mine.x, mine.topk_ids, mine.topk_weights))
    else:
        recv = moe.dispatch(mine.x, mine.topk_ids, mine.topk_weights)
    expected = reference.dispatch(sent, rank, placed, active)
    got = recv.trim()
    if two_phase:
        y = moe.combine_recv(moe.combine_send(returned[rank], recv.routing))
    else:
        y = moe.combine(returned[rank], recv.routing)
    wanted = reference.combine(sent, rank, placed, returned, active=active)
    texts = [first_difference("x", got.x, expected.x), first_difference("y", y, wanted)]
    return [text for text in texts if text]


def until_it_fails(moe: Dispatcher, gone: tuple[int, ...]) -> Any:
    """Pairs until one raises: that error. A pair may still succeed after a death that has not been seen."""
    for round_ in range(10_000):
        error = refusal(lambda round_=round_: pair(moe, gone, round_))
        if error is not None:
            return error
    return None


def pids_of(ctx: Any) -> list[int]:
    return [int(m.payload) for m in ctx.mesh.exchange("pids", str(os.getpid()).encode())]


def deaths(rank: int, world_size: int, uid: bytes, two_phase: bool) -> Any:
    """Ranks 1 and 3 die one after the other."""
    with open_context(rank, world_size, uid, timeout=KILLED_S, debug=False) as ctx:
        moe, gone, errors = masking(ctx), (), []
        wrong = pair(moe, gone, 0)
        for victim in (1, 3):
            if rank == victim:
                os.kill(os.getpid(), signal.SIGKILL)
            errors.append(until_it_fails(moe, gone))
            gone = (*gone, victim)
            for round_ in range(20):
                wrong += pair(moe, gone, round_, two_phase=two_phase)
            assert ctx.left_out == set(gone)
        return wrong, errors, refusal(lambda: ctx.readmit(timeout=5))


@pytest.mark.parametrize("two_phase", [False, True], ids=["whole", "two-phase"])
def test_ranks_that_die_one_after_the_other_are_left_out(two_phase: bool) -> None:
    results = run_ranks(deaths, 5, two_phase, expendable=[1, 3], timeout=80)
    for rank in (0, 2, 4):
        wrong, errors, last = results[rank]
        assert wrong == []
        assert [(type(error), error.peer) for error in errors] == [(PeerLost, 1), (PeerLost, 3)]
        assert isinstance(last, PeerLost)  # a dead rank does not come back


def wait_for_announcement(moe: Dispatcher) -> None:
    """Until a peer's first call of a new dispatcher has reached this rank's memory."""
    signals = as_tensor(partial(moe._memory.tensor, moe.ctx.rank), 0, (moe._layout.signal_bytes,), torch.uint8)
    while not bool(signals.any()):
        time.sleep(0.005)


def wait_until_stopped(pid: int) -> None:
    while Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "T":
        time.sleep(0.005)


def late_rank(moe: Dispatcher) -> list[Any]:
    """It is stopped in its first call, may wake in time for a call, and never for the agreement."""
    errors: list[Any] = [refusal(lambda: pair(moe, (), 0))]
    while not isinstance(errors[-1], PeerLost):
        errors = [errors[0], refusal(lambda: pair(moe, (), 0))]
    return errors


def punctual_rank(moe: Dispatcher, late: int, wrong: list[str]) -> list[Any]:
    """What it saw; its results must not change when the late rank wakes."""
    if moe.ctx.rank == 0:
        wait_for_announcement(moe)  # of the late rank: the other one waits for what follows
        os.kill(late, signal.SIGSTOP)
    else:
        wait_until_stopped(late)
    error, kept = refusal(lambda: pair(moe, (), 0)), []
    for round_ in (1, 2):  # as many live results as there are receive buffers
        mine = tokens_of(CASE, moe.ctx.rank, round_)
        recv = moe.dispatch(mine.x, mine.topk_ids, mine.topk_weights)
        kept.append((recv, recv.trim().x.clone()))
    if moe.ctx.rank == 0:
        os.kill(late, signal.SIGCONT)
    time.sleep(1.0)  # for the late rank to write
    for recv, before in kept:
        wrong += filter(None, [first_difference("kept", recv.trim().x, before)])
        recv.release()
    return [error, set(moe.ctx.left_out)]


def stopped(rank: int, world_size: int, uid: bytes, fenced: bool) -> Any:
    """Rank 1 is stopped in the middle of a dispatch, when its peers have told it where to put its rows and what it
    should wait for; it wakes when the others have results that lie where it would write. Twice."""
    with open_context(rank, world_size, uid, timeout=STOPPED_S, debug=False) as ctx:
        pids, wrong, told = pids_of(ctx), [], []
        for _ in range(2 if fenced else 1):
            moe = masking(ctx)
            if not fenced:  # planted: as if a mask were enough
                moe._halves = (moe._halves[0],) * 2
            ctx.mesh.barrier("ready", timeout=30)
            told += late_rank(moe) if rank == 1 else punctual_rank(moe, pids[1], wrong)
            if not fenced:
                break
            for round_ in range(3 if rank != 1 else 0):
                wrong += pair(moe, (1,), round_)
            ctx.readmit(timeout=60)
            for round_ in range(3):
                wrong += pair(moe, (), round_, two_phase=round_ == 1)
            ctx.barrier()
            moe.close()
        return wrong, told


def test_a_rank_that_wakes_up_writes_where_nobody_reads_and_comes_back() -> None:
    results = run_ranks(stopped, 3, True, timeout=90)
    for rank, (wrong, told) in enumerate(results):
        assert wrong == []
        for first, then in zip(told[::2], told[1::2], strict=True):
            if rank == 1:
                assert first is None or isinstance(first, TimeoutError)
                assert "went on without rank 1" in str(then)
            else:
                assert isinstance(first, TimeoutError) and first.peer == 1
                assert then == {1}


def test_without_other_memory_it_would_overwrite_results() -> None:
    """The planted mistake is found, so the test above can fail."""
    results = run_ranks(stopped, 3, False, timeout=90)
    assert results[0][0] + results[2][0] != []


def test_a_third_memory_is_not_there(crew3: Crew) -> None:
    """With a late rank still away, another one that is lost needs recover(), and the error says so."""

    def work(ctx: Any) -> Any:
        with masking(ctx) as moe:
            wrong = pair(moe, (), 0)
            if ctx.rank == 2:
                ctx.absence._late = frozenset({1})  # as after a turn without rank 1, which is alive
            error = refusal(ctx.leave_out) if ctx.rank == 2 else None
            ctx.mesh.barrier("then")
            ctx.absence._late = frozenset()
            return wrong, error, pair(moe, (), 1)

    for rank, (wrong, error, after) in enumerate(crew3.each(work)):
        assert wrong == after == []
        if rank == 2:
            assert isinstance(error, ConfigError) and "ranks [1]" in str(error) and "recover()" in str(error)


def test_leaving_nobody_out_turns_all(crew3: Crew) -> None:
    """By hand, with two dispatchers: handles of before are refused, results of before stay as they are."""

    def work(ctx: Any) -> Any:
        with masking(ctx) as one, masking(ctx) as two, make(ctx, CASE) as plain:
            wrong = pair(one, (), 0) + pair(two, (), 0) + pair(plain, (), 0)
            mine = tokens_of(CASE, ctx.rank)
            recv = one.dispatch(mine.x, mine.topk_ids, mine.topk_weights)
            before = recv.trim().x.clone()
            assert ctx.leave_out() == frozenset()
            error = refusal(lambda: one.combine(recv.x, recv.routing))
            for round_ in range(3):
                wrong += pair(one, (), round_) + pair(two, (), round_) + pair(plain, (), round_)
            wrong += filter(None, [first_difference("before", recv.trim().x, before)])
            ctx.readmit()
            return wrong + pair(one, (), 3) + pair(two, (), 3) + pair(plain, (), 3), str(error)

    for wrong, error in crew3.each(work):
        assert wrong == []
        assert "before ranks were left out" in error


def test_masks_of_the_caller_go_on(crew3: Crew) -> None:
    """Ranks that are left out are taken off `active`: here rank 2 by the one, rank 1 by the other."""

    def work(ctx: Any) -> Any:
        with masking(ctx) as moe:
            if ctx.rank != 0:
                return []
            moe._here = torch.tensor([0b101])
            mine = tokens_of(CASE, 0)
            recv = moe.dispatch(mine.x, mine.topk_ids, active=torch.tensor([0b011]))
            wanted = reference.dispatch([tokens_of(CASE, r) for r in range(3)], 0, expert_map(CASE, 3), (0,))
            return [text for text in [first_difference("x", recv.trim().x, wanted.x)] if text]

    assert crew3.each(work)[0] == []
    crew3.broken = True


def test_what_on_loss_may_be(crew3: Crew) -> None:
    def work(ctx: Any) -> list[str]:
        other = "mask" if ctx.rank == 1 else "raise"
        return [str(refusal(lambda value=value: make(ctx, CASE, on_loss=value))) for value in ("go on", other)]

    for first, second in crew3.each(work):
        assert "on_loss='go on': allowed are 'raise' and 'mask'" in first
        assert "on_loss" in second
