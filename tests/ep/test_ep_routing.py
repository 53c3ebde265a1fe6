# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""A routing handle can be used again and again, saved and restored; one that does not fit is refused, and where only
the ranks together can know that it does not fit, nobody gets a wrong sum."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from ep_cases import Case, compare_received, expert_map, make, open_context, returned_rows, tokens_of
from ep_crew import Crew, refusal
from mori.ep import Dispatcher, RoutingHandle, reference
from mori.ep.reference import Tokens, first_difference
from mori.errors import ConfigError
from mori.testing import run_ranks

pytestmark = pytest.mark.timeout(60)

CASE = Case("routing", topk=3, hidden=32)
WORLD = 3
SENT = [tokens_of(CASE, rank) for rank in range(WORLD)]
OTHER = [tokens_of(CASE, rank, 1) for rank in range(WORLD)]
MAP = expert_map(CASE, WORLD)


@pytest.fixture
def moes(crew3: Crew) -> Iterator[list[Dispatcher]]:
    made = crew3.each(lambda ctx: make(ctx, CASE, live_results=4))
    yield made
    for moe in made:
        moe.close()


def send(moes: list[Dispatcher], sent: list[Tokens], rank: int, **options: Any) -> Any:
    return moes[rank].dispatch(sent[rank].x, sent[rank].topk_ids, sent[rank].topk_weights, **options)


def check_combine(
    moe: Dispatcher, handle: RoutingHandle, rank: int, sent: list[Tokens], salt: int, **options: Any
) -> str:
    """Combines rows that differ by `salt`, and says what is wrong."""
    matrix = reference.counts(sent, MAP)
    returned = [returned_rows(CASE, r, int(matrix[:, r].sum()), salt) for r in range(WORLD)]
    y = moe.combine(returned[rank], handle, **options)
    weighted = options.get("apply_weights", False)
    return first_difference("y", y, reference.combine(sent, rank, MAP, returned, apply_weights=weighted))


def test_combined_twice_with_other_rows(crew3: Crew, moes: list[Dispatcher]) -> None:
    def work(ctx: Any) -> list[str]:
        handle = send(moes, SENT, ctx.rank).routing
        return [check_combine(moes[ctx.rank], handle, ctx.rank, SENT, salt) for salt in (1, 2, 3)]

    assert crew3.each(work) == [[""] * 3] * WORLD


def test_handles_of_two_dispatches_in_either_order(crew3: Crew, moes: list[Dispatcher]) -> None:
    def work(ctx: Any) -> list[str]:
        first, second = (send(moes, sent, ctx.rank).routing for sent in (SENT, OTHER))
        pairs = ((second, OTHER), (first, SENT), (second, OTHER))
        return [check_combine(moes[ctx.rank], handle, ctx.rank, sent, 5) for handle, sent in pairs]

    assert crew3.each(work) == [[""] * 3] * WORLD


def test_dispatch_along_the_same_routes(crew3: Crew, moes: list[Dispatcher]) -> None:
    again = [Tokens(-t.x, t.topk_ids, t.topk_weights) for t in SENT]

    def work(ctx: Any) -> list[str]:
        first = send(moes, SENT, ctx.rank)
        second = moes[ctx.rank].dispatch(again[ctx.rank].x, routing=first.routing)
        wrong = compare_received(second, reference.dispatch(again, ctx.rank, MAP))
        wrong += compare_received(first, reference.dispatch(SENT, ctx.rank, MAP))  # still there
        return [*wrong, check_combine(moes[ctx.rank], second.routing, ctx.rank, SENT, 7)]

    assert crew3.each(work) == [[""]] * WORLD


@pytest.mark.parametrize("weights", [True, False], ids=["weights", "no-weights"])
def test_saved_and_restored(crew3: Crew, moes: list[Dispatcher], weights: bool) -> None:
    def work(ctx: Any) -> str:
        mine = SENT[ctx.rank]
        recv = moes[ctx.rank].dispatch(mine.x, mine.topk_ids, mine.topk_weights if weights else None)
        saved = recv.routing.tensors()
        assert len(saved) == (3 if weights else 2)
        del recv
        send(moes, OTHER, ctx.rank)  # the original handle is gone and its buffer used again
        handle = RoutingHandle.from_tensors(moes[ctx.rank], saved)
        saved[0].zero_()  # the handle has its own copy
        return check_combine(moes[ctx.rank], handle, ctx.rank, SENT, 9, apply_weights=weights)

    assert crew3.each(work) == [""] * WORLD


def test_restored_in_a_dispatcher_like_the_first(crew3: Crew, moes: list[Dispatcher]) -> None:
    def work(ctx: Any) -> str:
        saved = send(moes, SENT, ctx.rank).routing.tensors()
        with make(ctx, CASE) as another:
            return check_combine(another, RoutingHandle.from_tensors(another, saved), ctx.rank, SENT, 2)

    assert crew3.each(work) == [""] * WORLD


def test_tensors_of_another_map_of_experts_are_refused(crew3: Crew, moes: list[Dispatcher]) -> None:
    def work(ctx: Any) -> list[str]:
        saved = send(moes, SENT, ctx.rank).routing.tensors()
        with make(ctx, CASE, expert_map=[e % WORLD for e in range(CASE.experts)]) as another:
            handle = RoutingHandle.from_tensors(another, saved)
            error = refusal(lambda: another.combine(returned_rows(CASE, ctx.rank, 99), handle))
            good = another.dispatch(SENT[ctx.rank].x, SENT[ctx.rank].topk_ids)
        return [str(error), str(int(good.total) > 0)]

    for text, went_on in crew3.each(work):
        assert "routing" in text and "other arguments" in text
        assert went_on == "True"


def test_ranks_that_combine_different_dispatches_are_refused(crew3: Crew, moes: list[Dispatcher]) -> None:
    """Each rank's own handle is good: only together they are not."""

    def work(ctx: Any) -> tuple[Any, str]:
        handles = [send(moes, sent, ctx.rank).routing for sent in (SENT, SENT)]
        chosen = handles[1 if ctx.rank == 2 else 0]
        moe = moes[ctx.rank]
        error = refusal(lambda: moe.combine(returned_rows(CASE, ctx.rank, 99), chosen))
        return error, check_combine(moe, handles[0], ctx.rank, SENT, 4)

    for rank, (error, after) in enumerate(crew3.each(work)):
        assert isinstance(error, ConfigError) and "routing of another dispatch" in str(error)
        assert f"rank {2 if rank != 2 else 0} " in str(error)
        assert after == ""


def test_a_rank_whose_handle_is_damaged(crew3: Crew, moes: list[Dispatcher]) -> None:
    def work(ctx: Any) -> tuple[Any, str]:
        handle = send(moes, SENT, ctx.rank).routing
        tensors = handle.tensors()
        if ctx.rank == 1:
            tensors[0].fill_(0xAB)
            tensors[0][8:16] = 0  # a total of nothing, so that the host sees nothing wrong
        damaged = RoutingHandle.from_tensors(moes[ctx.rank], tensors)
        error = refusal(lambda: moes[ctx.rank].combine(returned_rows(CASE, ctx.rank, 99), damaged))
        return error, check_combine(moes[ctx.rank], handle, ctx.rank, SENT, 4)

    for error, after in crew3.each(work):
        assert isinstance(error, ConfigError) and "routing" in str(error)
        assert after == ""


def test_ids_changed_after_dispatch_cannot_reach_beyond_the_experts(crew3: Crew, moes: list[Dispatcher]) -> None:
    """combine(apply_weights=True) reads the caller's ids again."""

    def work(ctx: Any) -> None:
        ids = SENT[ctx.rank].topk_ids.clone()
        recv = moes[ctx.rank].dispatch(SENT[ctx.rank].x, ids, SENT[ctx.rank].topk_weights)
        ids.fill_(1 << 30)
        y = moes[ctx.rank].combine(torch.ones_like(recv.x), recv.routing, apply_weights=True)
        assert (y == 0).all()

    crew3.each(work)


def refuse_table(rank: int, world_size: int, uid: bytes) -> dict[str, str]:
    """Handles that a rank by itself can see not to fit."""
    messages: dict[str, str] = {}
    with open_context(rank, world_size, uid) as ctx:
        moe, other, closed = (make(ctx, CASE) for _ in range(3))
        sent = [tokens_of(CASE, r) for r in range(world_size)][rank]
        recv = moe.dispatch(sent.x, sent.topk_ids, sent.topk_weights)
        foreign = other.dispatch(sent.x, sent.topk_ids).routing
        of_closed = closed.dispatch(sent.x, sent.topk_ids).routing
        closed.close()
        rows, routing, saved = torch.ones_like(recv.x), recv.routing, recv.routing.tensors()
        calls = {
            "foreign": lambda: moe.combine(rows, foreign),
            "foreign-dispatch": lambda: moe.dispatch(sent.x, routing=foreign),
            "closed": lambda: closed.combine(rows, of_closed),
            "closed-dispatch": lambda: closed.dispatch(sent.x, sent.topk_ids),
            "raw-ids": lambda: moe.combine(rows, sent.topk_ids),  # type: ignore[arg-type]
            "none": lambda: moe.combine(rows, None),  # type: ignore[arg-type]
            "received": lambda: moe.combine(rows, recv),  # type: ignore[arg-type]
            "token-count": lambda: moe.dispatch(sent.x[:-1], routing=routing),
            "ids-and-routing": lambda: moe.dispatch(sent.x, sent.topk_ids, routing=routing),
            "weights-and-routing": lambda: moe.dispatch(sent.x, None, sent.topk_weights, routing=routing),
            "no-ids": lambda: moe.dispatch(sent.x),
            "too-few-rows": lambda: moe.combine(rows[: int(recv.total) - 1], routing),
            "one-tensor": lambda: RoutingHandle.from_tensors(moe, saved[:1]),
            "short-data": lambda: RoutingHandle.from_tensors(moe, (saved[0][:-8], *saved[1:])),
            "other-data": lambda: RoutingHandle.from_tensors(moe, (saved[0].view(torch.int8), *saved[1:])),
            "other-ids": lambda: RoutingHandle.from_tensors(moe, (saved[0], saved[1].float(), saved[2])),
            "other-topk": lambda: RoutingHandle.from_tensors(moe, (saved[0], saved[1][:, :2].contiguous())),
            "no-tensor": lambda: RoutingHandle.from_tensors(moe, (None, None)),  # type: ignore[arg-type]
        }
        for name, call in calls.items():
            error = refusal(call)
            messages[name] = str(error) if isinstance(error, ConfigError) else f"not refused: {error!r}"
        y = moe.combine(rows, routing)  # all is as it was
        assert y.shape == sent.x.shape
        fresh = ctx.recover()
        error = refusal(lambda: moe.combine(rows, routing))
        messages["recovered"] = str(error)
        with make(fresh, CASE) as renewed:
            error = refusal(lambda: renewed.combine(rows, routing))
            messages["of-the-old-context"] = str(error)
            del moe
            messages["dispatcher-dropped"] = str(refusal(lambda: renewed.combine(rows, foreign)))
        fresh.close()
    return messages


REFUSED = {
    "foreign": "another dispatcher", "foreign-dispatch": "another dispatcher", "closed": "closed",
    "closed-dispatch": "closed", "raw-ids": "routing=Tensor", "none": "routing=NoneType", "received": "recv.routing",
    "token-count": "tokens, routing is of", "ids-and-routing": "do not pass both",
    "weights-and-routing": "do not pass both",
    "no-ids": "topk_ids is missing", "too-few-rows": "rows has", "one-tensor": "gives 2 or 3",
    "short-data": "tensors[0]",
    "other-data": "tensors[0]", "other-ids": "tensors[1]", "other-topk": "tensors[1]", "no-tensor": "tensors[0]",
    "recovered": "context is closed", "of-the-old-context": "another dispatcher",
    "dispatcher-dropped": "another dispatcher",
}  # fmt: skip


@pytest.fixture(scope="module")
def refused() -> list[dict[str, str]]:
    return run_ranks(refuse_table, WORLD, timeout=50)


@pytest.mark.parametrize("name", REFUSED)
def test_refused(refused: list[dict[str, str]], name: str) -> None:
    for messages in refused:
        assert REFUSED[name] in messages[name]
