# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Ranks that calls leave out: the others go on while they are stopped, or dead; one that comes back is taken in again,
and everything is bit for bit what the reference says for the ranks that took part."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from ep_cases import Case, expert_map, make, open_context, returned_rows, run_case, tokens_of
from ep_crew import Crew, refusal
from mori.ep import Dispatcher, reference
from mori.ep.reference import first_difference
from mori.errors import ConfigError, PeerLost, TimeoutError
from mori.testing import run_ranks

pytestmark = pytest.mark.timeout(60)

WORLD = 3
CASE = Case("masks", topk=3, hidden=32)


def pair(moe: Dispatcher, active: tuple[int, ...], round_: int) -> list[str]:
    """One dispatch and combine of the ranks in `active`, compared."""
    rank, placed = moe.ctx.rank, expert_map(CASE, WORLD)
    sent = [tokens_of(CASE, r, round_) for r in range(WORLD)]
    matrix = reference.counts(sent, placed, active)
    returned = [returned_rows(CASE, r, int(matrix[:, r].sum()), round_) for r in range(WORLD)]
    mask = torch.tensor([sum(1 << r for r in active)])
    mine = sent[rank]
    recv = moe.dispatch(mine.x, mine.topk_ids, mine.topk_weights, active=mask)
    expected = reference.dispatch(sent, rank, placed, active)
    got = recv.trim()
    y = moe.combine(returned[rank], recv.routing, active=mask)
    wanted = reference.combine(sent, rank, placed, returned, active=active)
    texts = [first_difference("x", got.x, expected.x), first_difference("y", y, wanted)]
    return [text for text in texts if text]


def test_a_rank_leaves_and_comes_back(crew3: Crew) -> None:
    """Others make calls without it, one or many, even or odd in number; then all make calls together."""

    def work(ctx: Any) -> list[str]:
        wrong: list[str] = []
        with make(ctx, CASE) as moe:
            for absent, calls in ((1, 1), (0, 2), (2, 5), (1, 0)):
                wrong += pair(moe, (0, 1, 2), 0)
                if ctx.rank != absent:
                    for round_ in range(calls):
                        wrong += pair(moe, tuple(r for r in range(WORLD) if r != absent), round_)
                moe.readmit()
                wrong += pair(moe, (0, 1, 2), 1)
        return wrong

    assert crew3.each(work) == [[]] * WORLD


def test_masks_change_from_call_to_call(crews: Callable[[int], Crew]) -> None:
    def work(ctx: Any) -> list[str]:
        wrong: list[str] = []
        with make(ctx, CASE) as moe:
            for round_, active in enumerate([(0, 1, 2), (0, 1, 2), (0, 2), (0, 2), (0,), (0,)]):
                if ctx.rank in active:
                    wrong += pair(moe, active, round_)
            moe.readmit()
            wrong += pair(moe, (0, 1, 2), 9)
        return wrong

    assert crews(3).each(work) == [[]] * WORLD


def test_ranks_with_different_masks_are_refused(crew3: Crew) -> None:
    def work(ctx: Any) -> Any:
        sent = tokens_of(CASE, ctx.rank)
        mask = torch.tensor([3 if ctx.rank == 0 else 7])
        with make(ctx, CASE) as moe:
            if ctx.rank == 2:
                return None
            error = refusal(lambda: moe.dispatch(sent.x, sent.topk_ids, active=mask))
        return error

    errors = crew3.each(work)
    assert isinstance(errors[0], ConfigError)
    assert isinstance(errors[1], (ConfigError, TimeoutError))  # waits for rank 2 as well
    crew3.broken = True


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (torch.tensor([7], dtype=torch.int32), "active is torch.int32"),
        (torch.tensor([7, 7]), "active has shape (2,)"),
        (7, "active must be a torch tensor"),
    ],
    ids=["int32", "two", "number"],
)
def test_masks_of_the_wrong_form(crew3: Crew, mask: Any, words: str) -> None:
    def work(ctx: Any) -> str:
        sent = tokens_of(CASE, ctx.rank)
        with make(ctx, CASE) as moe:
            text = str(refusal(lambda: moe.dispatch(sent.x, sent.topk_ids, active=mask)))
            return text if pair(moe, (0, 1, 2), 0) == [] else "wrong afterwards"

    assert all(words in text for text in crew3.each(work))


def fault(rank: int, world_size: int, uid: bytes, kind: str) -> Any:
    """Rank 1 is left out, then killed or stopped; the others go on, and take it in again, or recover without it."""
    with open_context(rank, world_size, uid, timeout=5.0, debug=False) as ctx:
        pids = [int(m.payload) for m in ctx.mesh.exchange("pids", str(os.getpid()).encode())]
        moe = make(ctx, CASE)
        wrong = pair(moe, (0, 1, 2), 0)
        if rank != 1:
            ctx.excuse([1])
        ctx.mesh.barrier("before")
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL if kind == "killed" else signal.SIGSTOP)
        else:
            for round_ in range(60):
                wrong += pair(moe, (0, 2), round_)
                time.sleep(0.01)  # until the loss of a killed rank has been seen
        if kind == "stopped":
            if rank == 0:
                os.kill(pids[1], signal.SIGCONT)
            moe.readmit()
            return [*wrong, *pair(moe, (0, 1, 2), 1)]
        error = refusal(moe.readmit)
        with ctx.recover() as fresh:
            return [*wrong, run_case(fresh, Case("after")), type(error).__name__]


def test_a_stopped_rank_is_left_out_and_taken_in_again() -> None:
    assert run_ranks(fault, WORLD, "stopped", timeout=50) == [[]] * WORLD


def test_a_masked_rank_s_death_is_no_failure() -> None:
    results = run_ranks(fault, WORLD, "killed", expendable=[1], timeout=50)
    for result in results[::2]:
        assert result == ["", "PeerLost"], result


def test_who_can_be_excused(crew3: Crew) -> None:
    def work(ctx: Any) -> list[str]:
        return [str(refusal(lambda r=r: ctx.excuse([r]))) for r in (ctx.rank, 3, -1)]

    for texts in crew3.each(work):
        assert all("is not another rank" in text for text in texts)


def unmasked(rank: int, world_size: int, uid: bytes) -> Any:
    """Without being excused, a rank's death ends the calls of the others, masked or not."""
    with open_context(rank, world_size, uid, timeout=5.0, debug=False) as ctx:
        moe = make(ctx, CASE)
        pair(moe, (0, 1, 2), 0)
        ctx.mesh.barrier("before")
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)

        def go_on() -> None:
            for round_ in range(400):
                pair(moe, (0, 2), round_)
                time.sleep(0.01)

        return refusal(go_on)


def test_a_death_that_is_not_excused_is_told() -> None:
    for error in run_ranks(unmasked, WORLD, expendable=[1], timeout=50)[::2]:
        assert isinstance(error, PeerLost) and error.peer == 1
