# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The slot map, for any routing hypothesis can think of: slots, positions and counts are those of docs/ep.md,
whatever the launch shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from ep_crew import Crew
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mori.ep import Dispatcher, Received, reference
from mori.ep.reference import Tokens, first_difference

pytestmark = pytest.mark.timeout(120)

MAX_TOKENS = 12
HIDDEN = 8
SHAPES = ((1, 1), (3, 1), (2, 3), (4, 2))  # blocks, warps


class Routing(NamedTuple):
    expert_map: list[int]
    topk: int
    ids: list[list[list[int]]]  # [rank][token][k]


@st.composite
def routings(draw: st.DrawFn) -> Routing:
    world_size = draw(st.sampled_from([1, 2, 3, 5]))
    experts = draw(st.integers(1, 9))
    topk = draw(st.integers(1, min(4, experts)))
    placed = draw(st.lists(st.integers(0, world_size - 1), min_size=experts, max_size=experts))
    choice = st.permutations(range(experts)).map(lambda order: order[:topk])
    masks = st.lists(st.booleans(), min_size=topk, max_size=topk)
    token = st.builds(lambda ids, off: [-1 if o else i for i, o in zip(ids, off, strict=True)], choice, masks)
    rank = st.lists(token, max_size=MAX_TOKENS)
    return Routing(placed, topk, draw(st.lists(rank, min_size=world_size, max_size=world_size)))


def inputs(routing: Routing) -> list[Tokens]:
    sent = []
    for rank, ids in enumerate(routing.ids):
        x = torch.arange(len(ids) * HIDDEN, dtype=torch.bfloat16).view(-1, HIDDEN) + 1000 * rank
        sent.append(Tokens(x, torch.tensor(ids, dtype=torch.int64).view(-1, routing.topk)))
    return sent


def positions(sent: list[Tokens], rank: int, expert_map: list[int], fan: int) -> torch.Tensor:
    """Where the rows of each token come back to in the owner's combine buffer, by ascending rank; -1 for no row."""
    goes = reference.visits(sent[rank].topk_ids, expert_map, len(sent))
    to_lower = goes.sum(0).cumsum(0) - goes.sum(0)
    row = to_lower + goes.long().cumsum(0) - 1
    found = torch.full((len(goes), fan), -1)
    for token in range(len(goes)):
        there = row[token][goes[token]]
        found[token, : len(there)] = there
    return found


def held_positions(recv: Received, held: Any, world_size: int, fan: int) -> torch.Tensor:
    """The same as the handle holds it (EpRoutingAddress), where the masks say that there is a row."""
    data, tokens = recv.routing.data, recv.routing.tokens
    masks = data[held.masks : held.masks + 8 * tokens].view(torch.int64)
    start = held.positions
    found = data[start : start + 4 * tokens * fan].view(torch.int32).view(tokens, fan).long()
    fans = (masks.unsqueeze(1) >> torch.arange(world_size) & 1).sum(1, keepdim=True)
    return found.masked_fill(torch.arange(fan) >= fans, -1)


def work(ctx: Any, routing: Routing, sent: list[Tokens], blocks: int, warps: int) -> list[str]:
    mine, fan = sent[ctx.rank], min(ctx.world_size, routing.topk)
    expected = reference.dispatch(sent, ctx.rank, routing.expert_map)
    with Dispatcher(
        ctx, HIDDEN, len(routing.expert_map), topk=routing.topk, max_tokens=MAX_TOKENS,
        expert_map=routing.expert_map, blocks=blocks, warps=warps,
    ) as moe:  # fmt: skip
        recv = moe.dispatch(mine.x, mine.topk_ids)
        got = recv.trim()
        wrong = [
            first_difference("src", got.src, expected.src),
            first_difference("x", got.x, expected.x),
            first_difference("ids", got.topk_ids, expected.topk_ids),
            first_difference("received", recv.routing.received, expected.counts),
            first_difference("sent", recv.routing.sent, reference.counts(sent, routing.expert_map)[ctx.rank]),
            first_difference(
                "positions",
                held_positions(recv, moe._layout.routing, ctx.world_size, fan),
                positions(sent, ctx.rank, routing.expert_map, fan),
            ),
        ]
        # A row comes back times its rank's number: the sum shows which ranks each token visited.
        y = moe.combine(torch.full_like(got.x, 1 << ctx.rank), recv.routing)
        visited = reference.visits(mine.topk_ids, routing.expert_map, ctx.world_size)
        sums = (visited.long() << torch.arange(ctx.world_size)).sum(1, keepdim=True).expand(-1, HIDDEN)
        wrong.append(first_difference("y", y, sums.to(torch.bfloat16).contiguous()))
    return [f"rank {ctx.rank}, {blocks} blocks of {warps}: {text}" for text in wrong if text]


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], database=None)
@given(routing=routings())
def test_slots_follow_the_definition(crews: Callable[[int], Crew], routing: Routing) -> None:
    crew = crews(len(routing.ids))
    sent = inputs(routing)
    for blocks, warps in SHAPES:
        wrong = crew.each(lambda ctx, b=blocks, w=warps: work(ctx, routing, sent, b, w))
        assert not sum(wrong, []), sum(wrong, [])
