# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Received rows are lent: they stay as they are until combined, released or dropped, and no longer than that."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from ep_cases import Case, compare_received, expert_map, make, tokens_of
from ep_crew import Crew, refusal
from mori.ep import Dispatcher, reference
from mori.ep.reference import as_bits
from mori.errors import CapacityError, ConfigError

pytestmark = pytest.mark.timeout(60)

CASE = Case("leases")
WORLD = 3
MAP = expert_map(CASE, WORLD)


@pytest.fixture
def moes(crew3: Crew) -> Iterator[list[Dispatcher]]:
    made = crew3.each(lambda ctx: make(ctx, CASE, live_results=2))
    yield made
    for moe in made:
        moe.close()


class Sender:
    """Dispatches and combines by one rank."""

    def __init__(self, moe: Dispatcher) -> None:
        self.moe, self.rank = moe, moe.ctx.rank

    def dispatch(self, round_: int) -> Any:
        sent = tokens_of(CASE, self.rank, round_)
        return self.moe.dispatch(sent.x, sent.topk_ids, sent.topk_weights)

    def wrong(self, recv: Any, round_: int) -> list[str]:
        sent = [tokens_of(CASE, r, round_) for r in range(WORLD)]
        return compare_received(recv, reference.dispatch(sent, self.rank, MAP))

    def combine(self, recv: Any, **options: Any) -> torch.Tensor:
        return self.moe.combine(torch.ones_like(recv.x), recv.routing, **options)


def each(crew: Crew, moes: list[Dispatcher], work: Any) -> list[Any]:
    return crew.each(lambda ctx, moe: work(Sender(moe)), moes)


def test_one_more_than_live_results_is_refused(crew3: Crew, moes: list[Dispatcher]) -> None:
    def work(sender: Sender) -> None:
        held = [sender.dispatch(0), sender.dispatch(1)]
        for _ in range(3):
            error = refusal(lambda: sender.dispatch(2))
            assert isinstance(error, CapacityError) and "live_results=2" in str(error), error
        assert [sender.wrong(recv, i) for i, recv in enumerate(held)] == [[], []]
        held[0].release()
        third = sender.dispatch(2)
        assert sender.wrong(held[1], 1) == [] and sender.wrong(third, 2) == []

    each(crew3, moes, work)


def test_a_second_release_frees_nothing_else(crew3: Crew, moes: list[Dispatcher]) -> None:
    def work(sender: Sender) -> None:
        first = sender.dispatch(0)
        first.release()
        others = [sender.dispatch(1), sender.dispatch(2)]  # one of them has the first one's memory
        first.release()
        first.release()
        assert isinstance(refusal(lambda: sender.dispatch(3)), CapacityError)
        del first
        gc.collect()
        assert isinstance(refusal(lambda: sender.dispatch(3)), CapacityError)
        assert [sender.wrong(recv, i + 1) for i, recv in enumerate(others)] == [[], []]

    each(crew3, moes, work)


def test_a_dropped_result_frees_its_memory(crew3: Crew, moes: list[Dispatcher]) -> None:
    def work(sender: Sender) -> None:
        for i in range(6):
            assert sender.wrong(sender.dispatch(i), i) == []

    each(crew3, moes, work)


@pytest.mark.parametrize("part", ["x", "topk_ids", "topk_weights", "src"])
def test_a_kept_view_keeps_the_memory(crew3: Crew, moes: list[Dispatcher], part: str) -> None:
    def work(sender: Sender) -> None:
        recv = sender.dispatch(0)
        view = getattr(recv.trim(), part)[1:].flatten()[2:]
        copy = view.clone()
        del recv
        gc.collect()
        for i in range(4):
            assert sender.wrong(sender.dispatch(i + 1), i + 1) == []
        second = sender.dispatch(5)
        assert isinstance(refusal(lambda: sender.dispatch(6)), CapacityError)
        assert torch.equal(as_bits(view), as_bits(copy))
        del view, second
        sender.dispatch(6), sender.dispatch(7)

    each(crew3, moes, work)


def test_the_routing_handle_keeps_no_memory(crew3: Crew, moes: list[Dispatcher]) -> None:
    def work(sender: Sender) -> None:
        handles = [sender.dispatch(i).routing for i in range(5)]
        assert len({handle.data.data_ptr() for handle in handles}) == 5

    each(crew3, moes, work)


def test_combine_releases_unless_told_not_to(crew3: Crew, moes: list[Dispatcher]) -> None:
    def work(sender: Sender) -> None:
        first, second = sender.dispatch(0), sender.dispatch(1)
        sender.combine(first, release=False)
        assert isinstance(refusal(lambda: sender.dispatch(2)), CapacityError)
        assert sender.wrong(first, 0) == []
        sender.combine(first)
        sender.combine(first)  # once more: nothing is given back twice
        third = sender.dispatch(2)
        assert isinstance(refusal(lambda: sender.dispatch(3)), CapacityError)
        assert sender.wrong(second, 1) == [] and sender.wrong(third, 2) == []

    each(crew3, moes, work)


def test_dispatch_dispatch_combine_combine(crew3: Crew, moes: list[Dispatcher]) -> None:
    def work(sender: Sender) -> None:
        for i in range(0, 12, 2):
            results = [sender.dispatch(i), sender.dispatch(i + 1)]
            for round_, recv in [*enumerate(results, i)][:: -1 if i % 4 else 1]:
                assert sender.wrong(recv, round_) == []
                y = sender.combine(recv)
                sent = tokens_of(CASE, sender.rank, round_)
                visited = reference.visits(sent.topk_ids, MAP, WORLD).sum(1, keepdim=True)
                assert torch.equal(y, visited.expand(-1, CASE.hidden).to(y.dtype))

    each(crew3, moes, work)


def test_ranks_hold_different_numbers_of_results(crew3: Crew, moes: list[Dispatcher]) -> None:
    """Each rank chooses the buffer it receives in, and the others follow."""

    def work(sender: Sender) -> None:
        held: list[Any] = []
        for i in range(12):
            keep = (sender.rank + i) % 3
            held = held[-keep:] if keep and i % 2 else []
            if len(held) == 2:
                held.pop(0)
            held.append((i, sender.dispatch(i)))
            for round_, recv in held:
                assert sender.wrong(recv, round_) == [], f"call {i}, result of {round_}"

    each(crew3, moes, work)


def test_a_refused_dispatch_keeps_no_memory(crew3: Crew) -> None:
    """Not even while the exception is held, whose frames hold everything else."""

    def work(ctx: Any) -> None:
        sent = tokens_of(CASE, ctx.rank)
        bad = sent.topk_ids.clone().fill_(CASE.experts)
        errors = []
        with make(ctx, CASE, live_results=1) as moe:
            for _ in range(3):
                try:
                    moe.dispatch(sent.x, bad)
                except ConfigError as error:
                    errors.append(error)
            moe.dispatch(sent.x, sent.topk_ids)
        assert len(errors) == 3

    crew3.each(work)


def test_results_outlive_their_dispatcher(crew3: Crew) -> None:
    def work(ctx: Any) -> None:
        with make(ctx, CASE, live_results=1) as moe:
            recv = Sender(moe).dispatch(0)
        del moe
        gc.collect()
        ctx.barrier()
        more = [make(ctx, CASE) for _ in range(3)]  # would be given the memory if it were free
        for moe in more:
            Sender(moe).dispatch(1)
        sent = [tokens_of(CASE, r, 0) for r in range(WORLD)]
        expected = reference.dispatch(sent, ctx.rank, MAP)
        assert torch.equal(recv.x[: len(expected.x)].view(torch.int16), expected.x.view(torch.int16))

    crew3.each(work)
