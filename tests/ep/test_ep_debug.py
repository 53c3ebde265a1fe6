# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Debug mode finds what is broken here on purpose, names it, and says nothing else: guards, stamps, handles, poison."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from ep_cases import Case, make, tokens_of
from ep_crew import Crew, refusal
from mori.errors import ConfigError, MoriError

pytestmark = pytest.mark.timeout(60)

CASE = Case("debug", topk=3, hidden=256, tokens=(6,), masked=0, rounds=1)
LAYOUTS: dict[str, dict[str, Any]] = {
    "rank": {},
    "expert": {"layout": "expert"},
    "grouped": {"layout": "grouped", "align": 4},
    "fp8": {"quantize": "fp8", "layout": "grouped"},
    "fp4": {"quantize": "fp4"},
}


def arguments(ctx: Any, round_: int = 0, case: Case = CASE) -> tuple[Any, ...]:
    sent = tokens_of(case, ctx.rank, round_)
    return sent.x, sent.topk_ids, sent.topk_weights


def halves(ctx: Any, moe: Any, case: Case, harm: Any) -> MoriError | None:
    """One dispatch, with `harm` done to rank 1 when all rows have come and nobody has looked."""
    pending = moe.dispatch_send(*arguments(ctx, 1, case))
    ctx.barrier()
    if ctx.rank == 1:
        harm(moe, pending.lease.tensor)
    error = refusal(lambda: moe.dispatch_recv(pending))
    ctx.barrier()
    return error


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_row_that_is_not_the_one_sent_is_found(crew3: Crew, layout: str) -> None:
    """A row of the call before lies where one of this call belongs."""
    case = dataclasses.replace(CASE, **LAYOUTS[layout])

    def old_row(moe: Any, memory: torch.Tensor) -> None:
        start, size = int(moe._layout.receive.rows), moe.plan.row_elements * moe.plan.received_dtype.itemsize
        memory[start : start + size] = moe.kept[start : start + size]

    def work(ctx: Any) -> Any:
        with make(ctx, case) as moe:
            before = moe.dispatch(*arguments(ctx, 0, case))
            moe.kept = before._memory.clone()
            before.release()
            found = halves(ctx, moe, case, old_row)
            return found, refusal(lambda: moe.dispatch(*arguments(ctx, 2, case)))

    told = crew3.each(work)
    assert [found is None for found, _ in told] == [True, False, True], told
    error = told[1][0]
    assert type(error) is MoriError and "slot 0 is not token" in str(error) and "rank 0 as sent in call 2" in str(error)
    assert [after for _, after in told] == [None] * 3


def test_a_row_that_never_came_is_found(crew3: Crew) -> None:
    def lost(moe: Any, memory: torch.Tensor) -> None:
        sources = memory[int(moe._layout.receive.sources) :][:8].view(torch.int64)
        sources.fill_(-1)

    def work(ctx: Any) -> Any:
        with make(ctx, CASE) as moe:
            return halves(ctx, moe, CASE, lost)

    told = crew3.each(work)
    assert "src of the received rows" in str(told[1]) and (told[0], told[2]) == (None, None), told


@pytest.mark.parametrize("part", ["x", "topk_ids", "topk_weights", "src"])
def test_a_write_behind_a_part_is_found(crew3: Crew, part: str) -> None:
    """As an expert's code does that is wrong by one row."""

    def behind(moe: Any, memory: torch.Tensor) -> None:
        guard = next(g for g in moe._layout.receive_guards if g.behind == part)
        memory[guard.offset + 8] = 0

    def work(ctx: Any) -> Any:
        with make(ctx, CASE, live_results=1) as moe:
            error = halves(ctx, moe, CASE, behind)
            moe.dispatch(*arguments(ctx)).release()
            return error, refusal(moe.check_memory)

    told = crew3.each(work)
    assert f"behind {part} of receive buffer 0" in str(told[1][0]), told
    assert [error is None for error, _ in told] == [True, False, True]
    assert [after for _, after in told] == [None] * 3  # lent anew, guarded anew


@pytest.mark.parametrize("part", ["the signals", "the combine buffers", "the stamps"])
def test_a_write_behind_the_workspace_is_found(crew3: Crew, part: str) -> None:
    def work(ctx: Any) -> Any:
        with make(ctx, CASE) as moe:
            recv = moe.dispatch(*arguments(ctx))
            guard = next(g for g in moe._layout.guards if g.behind == part)
            ctx.heap.core.fill(moe._memory.offset + guard.offset + 255, ctx.rank, 1)
            return refusal(lambda: moe.combine(recv.x, recv.routing)), refusal(moe.check_memory)

    for error, again in crew3.each(work):
        assert part in str(error) and str(error) == str(again)


def test_a_handle_that_was_written_to_is_refused(crew3: Crew) -> None:
    def work(ctx: Any) -> Any:
        with make(ctx, CASE) as moe:
            recv = moe.dispatch(*arguments(ctx))
            moe.combine(recv.x, recv.routing, release=False)
            recv.routing.data[int(moe._layout.routing.positions)] += 1
            error = refusal(lambda: moe.combine(recv.x, recv.routing))
            recv.release()
            again = moe.dispatch(*arguments(ctx, 1))
            return error, refusal(lambda: moe.combine(again.x, again.routing))

    for error, after in crew3.each(work):
        assert isinstance(error, ConfigError) and "routing: its memory was written to" in str(error)
        assert after is None


def test_rows_of_one_dispatch_with_the_routing_of_another_are_refused(crew3: Crew) -> None:
    def work(ctx: Any) -> Any:
        with make(ctx, CASE, live_results=3) as moe:
            first, second = moe.dispatch(*arguments(ctx, 0)), moe.dispatch(*arguments(ctx, 0))
            third = moe.dispatch(arguments(ctx, 1)[0], routing=first.routing)
            error = refusal(lambda: moe.combine(first.x, second.routing))
            moe.combine(third.x, first.routing, release=False)  # other rows, the same routes
            moe.combine(first.x, third.routing, release=False)
            return error, refusal(lambda: moe.combine(second.x, second.routing))

    for error, after in crew3.each(work):
        assert isinstance(error, ConfigError) and "rows lie in the result of dispatch number 1" in str(error)
        assert after is None


def test_buffers_are_poisoned(crew3: Crew) -> None:
    """What nobody wrote is NaN: behind received rows, and in combine buffers when their sums have been made."""

    def work(ctx: Any) -> Any:
        with make(ctx, CASE) as moe:
            recv = moe.dispatch(*arguments(ctx))
            padding = recv.x[int(recv.total) :]
            moe.combine(recv.x, recv.routing, release=False)
            start, size = int(moe._layout.combine_rows), moe._layout.combine_buffers * moe._layout.combine_bytes
            combined = torch.empty(size, dtype=torch.uint8)
            ctx.core_device.copy(combined.data_ptr(), ctx.heap.address(moe._memory) + start, size)
            return len(padding) > 0 and bool(padding.isnan().all()), bool((combined == 0xFF).all())

    assert crew3.each(work) == [(True, True)] * 3


def test_without_debug_nothing_is_set_aside(crew3: Crew) -> None:
    def work(ctx: Any) -> Any:
        with make(ctx, CASE, debug=False) as moe, make(ctx, CASE) as checked:
            layout = moe._layout
            error = refusal(moe.check_memory)
            return len(layout.guards), len(layout.receive_guards), layout.heap_bytes < checked._layout.heap_bytes, error

    for guards, receive_guards, smaller, error in crew3.each(work):
        assert (guards, receive_guards, smaller) == (0, 0, True)
        assert isinstance(error, ConfigError) and "debug=False" in str(error)


def test_ranks_that_differ_in_debug_are_refused(crew3: Crew) -> None:
    def work(ctx: Any) -> Any:
        return refusal(lambda: make(ctx, CASE, debug=ctx.rank == 0))

    assert all(isinstance(error, ConfigError) and "debug" in str(error) for error in crew3.each(work))
