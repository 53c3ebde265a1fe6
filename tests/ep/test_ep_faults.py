# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""A rank that is killed or stopped, before a call or in the middle of one: the others raise within the deadline and
name
it, go on raising until recover(), and then work without it; a stopped rank that wakes up later is told, and harms
nobody."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from ep_cases import Case, open_context, run_case
from ep_crew import refusal
from mori.ep import Dispatcher
from mori.errors import PeerLost, TimeoutError
from mori.testing import run_ranks

pytestmark = pytest.mark.timeout(90)

WORLD, VICTIM = 3, 1
STOPPED_S, KILLED_S = 2.0, 30.0  # the context's deadlines
SIGNALS = {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP}
BIG_TOKENS, BIG_HIDDEN = 2000, 4096  # 16 MB a rank, to be hit in the middle


class Told(NamedTuple):
    """What a survivor saw."""

    first: Exception | None
    seconds: float
    second: Exception | None
    ranks: int
    after: str
    after_wake: str


def hit_later(what: int) -> None:
    """Ends or stops this process in the middle of the calls that follow."""

    def strike() -> None:
        time.sleep(0.15)
        os.kill(os.getpid(), what)

    threading.Thread(target=strike, daemon=True).start()


def calls_until_failure(moe: Dispatcher, place: str, hit: int | None) -> tuple[Exception | None, float]:
    """Calls until one raises: the exception, and how long that call took."""
    tokens, experts = BIG_TOKENS if "during" in place else 3, moe.num_experts
    generator = torch.Generator().manual_seed(moe.ctx.rank)
    x = torch.randn(tokens, BIG_HIDDEN, generator=generator).to(torch.bfloat16)
    ids = torch.rand(tokens, experts, generator=generator).argsort(1)[:, :4].contiguous()
    recv = moe.dispatch(x, ids)
    moe.ctx.mesh.barrier("before")  # nobody is in that dispatch any more
    if hit is not None and "before" in place:
        os.kill(os.getpid(), hit)
    if hit is not None:
        hit_later(hit)
    for _ in range(2000):
        start = time.monotonic()
        if "dispatch" in place:
            error = refusal(lambda: moe.dispatch(x, ids).release())
        else:
            error = refusal(lambda: moe.combine(recv.x, recv.routing, release=False))
        if error is not None:
            return error, time.monotonic() - start
    return None, 0.0


def work(rank: int, world_size: int, uid: bytes, fault: str, place: str, folder: Path) -> Told | None:
    told_file = folder / "victim"
    with open_context(rank, world_size, uid, timeout=STOPPED_S if fault == "stopped" else KILLED_S, debug=False) as ctx:
        pids = [int(m.payload) for m in ctx.mesh.exchange("pids", str(os.getpid()).encode())]
        moe = Dispatcher(ctx, BIG_HIDDEN, 8, topk=4, max_tokens=BIG_TOKENS)
        error, seconds = calls_until_failure(moe, place, SIGNALS[fault] if rank == VICTIM else None)
        if rank == VICTIM:
            told_file.with_suffix(".part").write_text(f"{type(error).__name__} {error}")
            told_file.with_suffix(".part").rename(told_file)
            return None
        second = refusal(
            lambda: moe.dispatch(torch.zeros(0, BIG_HIDDEN, dtype=torch.bfloat16), torch.zeros(0, 4).int())
        )
        with ctx.recover(timeout=4 if fault == "stopped" else KILLED_S) as fresh:
            case = Case("survivors", rounds=3)
            after = run_case(fresh, case)
            after_wake = ""
            if fault == "stopped":
                if fresh.rank == 0:
                    os.kill(pids[VICTIM], signal.SIGCONT)
                for _ in range(200):
                    after_wake = after_wake or run_case(fresh, case)
                    if fresh.mesh.exchange("told", bytes([told_file.exists()]))[0].payload == b"\1":
                        break
                    time.sleep(0.05)
                after_wake = after_wake or run_case(fresh, case)
            return Told(error, seconds, second, fresh.world_size, after, after_wake)


@pytest.mark.parametrize("place", ["before-dispatch", "during-dispatch", "before-combine", "during-combine"])
@pytest.mark.parametrize("fault", SIGNALS)
def test_survivors(fault: str, place: str, tmp_path: Path) -> None:
    results: list[Any] = run_ranks(work, WORLD, fault, place, tmp_path, expendable=[VICTIM], timeout=80)
    for told in (results[rank] for rank in range(WORLD) if rank != VICTIM):
        kind = PeerLost if fault == "killed" else TimeoutError
        assert type(told.first) is kind and told.first.peer == VICTIM, told.first
        assert f"rank {VICTIM}" in str(told.first)
        assert told.seconds < (KILLED_S / 2 if fault == "killed" else STOPPED_S + 10)
        assert type(told.second) is kind and str(told.second) == str(told.first)
        assert told.ranks == WORLD - 1
        assert (told.after, told.after_wake) == ("", "")
    if fault == "stopped":
        text = (tmp_path / "victim").read_text()
        assert text.startswith(("PeerLost", "TimeoutError")), text


def closes(rank: int, world_size: int, uid: bytes) -> Any:
    ctx = open_context(rank, world_size, uid, timeout=1.5)
    moe = Dispatcher(ctx, 16, 8, topk=2, max_tokens=4)
    x, ids = torch.ones(4, 16, dtype=torch.bfloat16), torch.arange(8).view(4, 2)
    moe.dispatch(x, ids)
    if rank == 1:
        ctx.close()
        time.sleep(4)
        return None
    start = time.monotonic()
    error, seconds = refusal(lambda: moe.dispatch(x, ids)), time.monotonic() - start
    time.sleep(1.5)  # who leaves first would be missed by the other
    return error, seconds


def test_a_rank_that_left_in_order_is_named_too() -> None:
    for error, seconds in run_ranks(closes, 3, timeout=40)[::2]:
        assert isinstance(error, (TimeoutError, PeerLost)) and error.peer == 1, error
        assert seconds < 10


def one_thread_absent(rank: int, world_size: int, uid: bytes) -> Any:
    with open_context(rank, world_size, uid, timeout=1.0) as ctx:
        moe = Dispatcher(ctx, 16, 8, topk=2, max_tokens=4)
        x, ids = torch.ones(4, 16, dtype=torch.bfloat16), torch.arange(8).view(4, 2)
        recv = moe.dispatch(x, ids)
        if rank == 0:
            time.sleep(2.5)
            late = refusal(lambda: moe.combine(recv.x, recv.routing))
            return late
        return refusal(lambda: moe.combine(recv.x, recv.routing))


def test_an_absent_thread_is_named_with_what_was_seen() -> None:
    late, *others = run_ranks(one_thread_absent, 3, mode="thread", timeout=40)
    for error in others:
        assert isinstance(error, TimeoutError) and error.peer == 0
        assert error.what == "ep.combine: returned rows" and (error.expected, error.seen) == (1, 0)
    assert late is None or isinstance(late, (TimeoutError, PeerLost))


def late_context(rank: int, world_size: int, uid: bytes) -> bool:
    """A short deadline is the context's own: another context of the same processes goes on."""
    with open_context(rank, world_size, uid, timeout=20.0) as steady:
        inner = steady.mesh.exchange("uid", b"" if rank else _fresh_uid())[0].payload
        with open_context(rank, world_size, inner, timeout=2) as hasty:
            moe = Dispatcher(hasty, 16, 8, topk=2, max_tokens=4)
            if rank == 0:
                refusal(lambda: moe.dispatch(torch.ones(1, 16, dtype=torch.bfloat16), torch.zeros(1, 2).int()))
            steady.barrier()
        return run_case(steady, Case("steady")) == ""


def _fresh_uid() -> bytes:
    from mori.uid import unique_id

    return unique_id()


def test_a_failed_context_does_not_touch_another() -> None:
    assert run_ranks(late_context, 2, timeout=40) == [True, True]
