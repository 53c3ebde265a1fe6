# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What libraries of this kind got wrong in the field, asked of every layout: any top-k, ids that name no expert, more
tokens than 16 bits count, results held while others come, ranks without tokens, one call only."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from ep_cases import (
    Case,
    check,
    compare_arranged,
    compare_received,
    expert_map,
    make,
    open_context,
    run_case,
    table,
    tokens_of,
)
from ep_crew import Crew, refusal
from mori.ep import reference
from mori.errors import ConfigError
from mori.testing import run_ranks

pytestmark = pytest.mark.timeout(120)

LAYOUTS: dict[str, dict[str, Any]] = {
    "rank": {},
    "expert": {"layout": "expert"},
    "grouped": {"layout": "grouped", "align": 8},
}

TOPK = table(
    *(
        Case(
            f"top-{k}-{name}", topk=k, experts=k + 3, apply_weights=k % 2 == 0, tokens=(5, 0, 9), max_tokens=9, **layout
        )
        for k, (name, layout) in itertools.product([*range(1, 17), 24, 32], LAYOUTS.items())
    )
)


@pytest.mark.parametrize("name", TOPK)
def test_every_top_k(name: str) -> None:
    check(TOPK, name, 3)


WAVES = table(*(TOPK[f"top-{k}-{name}"] for k, name in itertools.product((6, 9, 10, 12), LAYOUTS)))


@pytest.mark.parametrize("name", WAVES)
def test_top_k_that_do_not_divide_a_wave(name: str) -> None:
    check(WAVES, name, 3, lanes=64)


ONCE = table(
    *(
        Case(f"{what}-{name}", rounds=1, tokens=tokens, **layout)
        for (what, tokens), (name, layout) in itertools.product(
            {"once": (5,), "once-mostly-empty": (0, 0, 4), "once-empty": (0,)}.items(), LAYOUTS.items()
        )
    )
)


@pytest.mark.parametrize("name", ONCE)
def test_a_single_call(name: str) -> None:
    check(ONCE, name, 3)


BAD_IDS = {
    "num_experts": (torch.int32, 8),
    "below-none": (torch.int32, -2),
    "smallest-int32": (torch.int32, -(2**31)),
    "largest-int32": (torch.int32, 2**31 - 1),
    "smallest-int64": (torch.int64, -(2**63)),
    "2^32-as-0": (torch.int64, 2**32),
    "2^32-1": (torch.int64, 2**32 - 1),
}


@pytest.mark.parametrize("bad", BAD_IDS)
@pytest.mark.parametrize("placement", ["blocks", "replicated"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_ids_that_name_no_expert(crew3: Crew, layout: str, placement: str, bad: str) -> None:
    """All ranks hear of it, nothing is sent, and the next call works."""
    dtype, value = BAD_IDS[bad]
    case = Case("bad-ids", placement=placement, rounds=1, **LAYOUTS[layout])

    def work(ctx: Any) -> tuple[Any, Any]:
        sent = tokens_of(case, ctx.rank)
        ids = sent.topk_ids.to(dtype, copy=True)
        if ctx.rank == 1:
            ids[-1, 1] = value
        with make(ctx, case) as moe:
            first = refusal(lambda: moe.dispatch(sent.x, ids))
            moe.dispatch(sent.x, sent.topk_ids)
        return first, run_case(ctx, case)

    for error, after in crew3.each(work):
        assert isinstance(error, ConfigError) and "rank 1" in str(error), error
        assert after == ""


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("tokens", [65_535, 65_537], ids="{}tokens".format)
def test_more_tokens_than_16_bits_count(crews: Callable[[int], Crew], tokens: int, layout: str) -> None:
    case = Case("many", hidden=8, experts=3, topk=2, tokens=(tokens, 7), max_tokens=tokens, rounds=1, **LAYOUTS[layout])
    roomy = Crew(2, timeout=30.0, heap_bytes=64 << 20)
    try:
        assert roomy.each(lambda ctx: run_case(ctx, case)) == [""] * 2
    finally:
        roomy.close()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_several_results_at_once(crew3: Crew, layout: str) -> None:
    """Three dispatches before any combine; combined in another order, one of them twice, one never."""
    case = Case("several", topk=3, hidden=16, **LAYOUTS[layout])
    placed = expert_map(case, 3)

    def work(ctx: Any) -> list[str]:
        wrong: list[str] = []
        with make(ctx, case, live_results=3) as moe:
            for first in range(0, 6, 3):
                held = {}
                for round_ in range(first, first + 3):
                    mine = tokens_of(case, ctx.rank, round_)
                    held[round_] = moe.dispatch(mine.x, mine.topk_ids, mine.topk_weights)
                for round_ in (first + 2, first, first):
                    sent = [tokens_of(case, r, round_) for r in range(3)]
                    recv = held[round_]
                    expected = reference.dispatch(sent, ctx.rank, placed)
                    if layout == "rank":
                        wrong += compare_received(recv, expected)
                    else:
                        wrong += compare_arranged(recv, expected, case, placed, ctx.rank)[0]
                    y = moe.combine(torch.ones_like(recv.x), recv.routing, release=False)
                    visits = reference.visits(sent[ctx.rank].topk_ids, placed, 3).sum(1, keepdim=True)
                    if layout != "rank":
                        visits = (sent[ctx.rank].topk_ids >= 0).sum(1, keepdim=True)
                    if not torch.equal(y, visits.expand(-1, case.hidden).to(y.dtype)):
                        wrong.append(f"sums of {round_}")
                for recv in held.values():
                    recv.release()
                held.clear()
        return wrong

    assert crew3.each(work) == [[]] * 3


def moving(rank: int, world_size: int, uid: bytes, layout: str) -> list[str]:
    """The map of experts changes between calls: rows follow, old handles are refused, captured sizes still fit."""
    wrong: list[str] = []
    case = Case("moving", topk=3, experts=6, hidden=16, **LAYOUTS[layout])
    maps = ([0, 0, 1, 1, 2, 2], [2, 1, 0, 0, 1, 2], [1, 0, 2, 1, 0, 2])
    with open_context(rank, world_size, uid) as ctx, make(ctx, case, expert_map=maps[0]) as moe:
        old = None
        for round_, placed in enumerate((*maps, *maps)):
            moe.set_expert_map(placed)
            sent = [tokens_of(case, r, round_) for r in range(world_size)]
            mine = sent[rank]
            if old is not None:
                rows = torch.zeros_like(old.x)
                text = str(refusal(lambda old=old, rows=rows: moe.combine(rows, old.routing)))
                wrong += [] if "before set_expert_map" in text else [text]
            recv = moe.dispatch(mine.x, mine.topk_ids, mine.topk_weights)
            expected = reference.dispatch(sent, rank, placed)
            if layout == "rank":
                wrong += compare_received(recv, expected)
            else:
                wrong += compare_arranged(recv, expected, case, tuple(placed), rank)[0]
            y = moe.combine(torch.ones_like(recv.x), recv.routing)
            if layout == "rank":
                visits = reference.visits(mine.topk_ids, placed, world_size).sum(1, keepdim=True)
            else:
                visits = (mine.topk_ids >= 0).sum(1, keepdim=True)
            if not torch.equal(y, visits.expand(-1, case.hidden).to(y.dtype)):
                wrong.append(f"sums of {round_}")
            old = recv
        for bad, words in (([0] * 5, "5 entries"), ([0, 0, 1, 1, 2, (0, 2)], "7 copies"), ([3] * 6, "not a rank")):
            text = str(refusal(lambda bad=bad: moe.set_expert_map(bad)))
            wrong += [] if words in text else [text]
    return wrong


@pytest.mark.parametrize("layout", LAYOUTS)
def test_experts_move_between_calls(layout: str) -> None:
    assert run_ranks(moving, 3, layout, timeout=60) == [[]] * 3
