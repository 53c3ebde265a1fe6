# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The reference of the layouts by expert, of replicated experts and of masked ranks: what they promise, for any routing
hypothesis can think of, and examples worked out by hand."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mori.ep import reference
from mori.ep.reference import Tokens
from mori.errors import CapacityError, ConfigError

pytestmark = pytest.mark.timeout(60)
HIDDEN = 3
relaxed = settings(max_examples=120, deadline=None, derandomize=True, database=None)


class Routing(NamedTuple):
    expert_map: list[list[int]]
    topk: int
    sent: list[Tokens]


@st.composite
def routings(draw: st.DrawFn, replicated: bool = False) -> Routing:
    world = draw(st.integers(1, 4))
    experts = draw(st.integers(1, 7))
    topk = draw(st.integers(1, min(3, experts)))
    ranks = st.integers(0, world - 1)
    held = st.lists(ranks, min_size=1, max_size=world, unique=True) if replicated else ranks.map(lambda r: [r])
    placed = draw(st.lists(held, min_size=experts, max_size=experts))
    choice = st.permutations(range(experts)).map(lambda order: order[:topk])
    masks = st.lists(st.booleans(), min_size=topk, max_size=topk)
    token = st.builds(lambda ids, off: [-1 if o else i for i, o in zip(ids, off, strict=True)], choice, masks)
    sent = []
    for rank in range(world):
        ids = draw(st.lists(token, max_size=9))
        x = torch.arange(len(ids) * HIDDEN, dtype=torch.float32).view(-1, HIDDEN) + 1000 * rank
        weights = torch.rand(len(ids), topk, generator=torch.Generator().manual_seed(rank))
        sent.append(Tokens(x, torch.tensor(ids, dtype=torch.int64).view(-1, topk), weights))
    return Routing(placed, topk, sent)


@pytest.mark.parametrize("layout", ["expert", "grouped"])
@given(routing=routings(), align=st.sampled_from([1, 2, 4, 5]))
@relaxed
def test_every_selection_has_one_slot_of_its_expert(layout: str, routing: Routing, align: int) -> None:
    for rank in range(len(routing.sent)):
        received = reference.dispatch(routing.sent, rank, routing.expert_map)
        experts = reference.local_experts(routing.expert_map, rank)
        placed = reference.arrange(received, experts, layout=layout, expert_capacity=40, align=align)
        flat = placed.x.reshape(-1, HIDDEN)
        used = set()
        for row in range(len(received.x)):
            for k in range(routing.topk):
                slot, expert = int(placed.routes[row, k]), int(received.topk_ids[row, k])
                assert (slot >= 0) == (expert >= 0)
                if slot < 0:
                    continue
                used.add(slot)
                index = experts.index(expert)
                start = int(placed.offsets[index])
                assert start <= slot < start + int(placed.counts[index])
                assert int(placed.slot_rows[slot]) == row and torch.equal(flat[slot], received.x[row])
        assert len(used) == int((received.topk_ids >= 0).sum()) == int(placed.counts.sum())
        empty = [slot for slot in range(len(flat)) if slot not in used]
        assert all(int(placed.slot_rows[slot]) == -1 and not flat[slot].any() for slot in empty)


@given(routing=routings(), align=st.sampled_from([1, 3, 8]))
@relaxed
def test_groups_are_aligned_and_rows_keep_their_order(routing: Routing, align: int) -> None:
    for rank in range(len(routing.sent)):
        received = reference.dispatch(routing.sent, rank, routing.expert_map)
        experts = reference.local_experts(routing.expert_map, rank)
        placed = reference.arrange(received, experts, layout="grouped", align=align)
        offsets = placed.offsets.tolist()
        assert offsets[0] == 0 and len(placed.x) == offsets[-1] and len(offsets) == len(experts) + 1
        for index, count in enumerate(placed.counts.tolist()):
            length = offsets[index + 1] - offsets[index]
            assert length % align == 0 and 0 <= length - count < align
            assert length or not count
            rows = placed.slot_rows[offsets[index] : offsets[index] + count].tolist()
            assert rows == sorted(rows)


@given(routing=routings(replicated=True))
@relaxed
def test_a_copy_takes_each_selection_of_a_replicated_expert(routing: Routing) -> None:
    world = len(routing.sent)
    got = [reference.dispatch(routing.sent, rank, routing.expert_map) for rank in range(world)]
    for source, tokens in enumerate(routing.sent):
        chosen = reference.holders(tokens.topk_ids, routing.expert_map, source)
        for token, ids in enumerate(tokens.topk_ids.tolist()):
            for k, expert in enumerate(ids):
                where = [
                    rank
                    for rank in range(world)
                    for row in (got[rank].src == source << 32 | token).nonzero().flatten().tolist()
                    if int(got[rank].topk_ids[row, k]) == expert >= 0
                ]
                assert where == ([int(chosen[token, k])] if expert >= 0 else [])
                if expert >= 0:
                    held = sorted(routing.expert_map[expert])
                    wanted = source if source in held else held[(source + token) % len(held)]
                    assert where == [wanted]


@given(routing=routings(replicated=True), data=st.data())
@relaxed
def test_masked_ranks_neither_send_nor_receive(routing: Routing, data: st.DataObject) -> None:
    world = len(routing.sent)
    active = data.draw(st.sets(st.integers(0, world - 1)))
    matrix = reference.counts(routing.sent, routing.expert_map, active)
    for rank in range(world):
        received = reference.dispatch(routing.sent, rank, routing.expert_map, active)
        assert torch.equal(received.counts, matrix[:, rank])
        if rank not in active:
            assert len(received.x) == 0 and not matrix[rank].any()
    if len(active) == world:
        assert torch.equal(matrix, reference.counts(routing.sent, routing.expert_map))


@pytest.mark.parametrize("layout", ["expert", "grouped"])
@given(routing=routings())
@relaxed
def test_identity_experts_give_the_rank_layout_s_sums(layout: str, routing: Routing) -> None:
    """Integers are exact: experts that return what they got sum to x times the number of selections."""
    returned = []
    for rank in range(len(routing.sent)):
        received = reference.dispatch(routing.sent, rank, routing.expert_map)
        experts = reference.local_experts(routing.expert_map, rank)
        placed = reference.arrange(received, experts, layout=layout, expert_capacity=40, align=4)
        returned.append(reference.gather_rows(placed, placed.x))
    for rank, tokens in enumerate(routing.sent):
        y = reference.combine(routing.sent, rank, routing.expert_map, returned)
        assert torch.equal(y, tokens.x * (tokens.topk_ids >= 0).sum(1, keepdim=True))


# Experts 0 and 2 live on rank 0, expert 1 on rank 1.
MAP = (0, 1, 0)
SENT = [
    Tokens(torch.tensor([[1.0], [2.0]]), torch.tensor([[2, 0], [1, 0]]), torch.tensor([[0.5, 3.0], [9.0, 2.0]])),
    Tokens(torch.tensor([[5.0]]), torch.tensor([[2, -1]]), torch.tensor([[4.0, 7.0]])),
]


def test_grouped_by_hand() -> None:
    received = reference.dispatch(SENT, 0, MAP)
    placed = reference.arrange(received, [0, 2], layout="grouped", align=4)
    assert placed.x.flatten().tolist() == [1, 2, 0, 0, 1, 5, 0, 0]
    assert placed.offsets.tolist() == [0, 4, 8] and placed.counts.tolist() == [2, 2]
    assert placed.routes.tolist() == [[4, 0], [-1, 1], [5, -1]]
    assert placed.slot_rows.tolist() == [0, 1, -1, -1, 0, 2, -1, -1]
    outputs = torch.tensor([[10.0], [20.0], [0], [0], [100.0], [500.0], [0], [0]])
    assert reference.gather_rows(placed, outputs).tolist() == [[110], [20], [500]]
    weighted = reference.gather_rows(placed, outputs, received.topk_weights)
    assert weighted.tolist() == [[0.5 * 100 + 3 * 10], [2 * 20], [4 * 500]]


def test_expert_by_hand() -> None:
    received = reference.dispatch(SENT, 0, MAP)
    placed = reference.arrange(received, [0, 2], layout="expert", expert_capacity=3)
    assert placed.x.shape == (2, 3, 1) and placed.x.flatten().tolist() == [1, 2, 0, 1, 5, 0]
    assert placed.routes.tolist() == [[3, 0], [-1, 1], [4, -1]]
    with pytest.raises(CapacityError, match="expert 0 would receive 2 rows, its capacity is 1"):
        reference.arrange(received, [0, 2], layout="expert", expert_capacity=1)
    with pytest.raises(ConfigError, match="layout='rank'"):
        reference.arrange(received, [0, 2], layout="rank")


def test_a_rank_without_experts_or_rows() -> None:
    received = reference.dispatch(SENT, 1, (0, 0, 0))
    for layout in ("expert", "grouped"):
        placed = reference.arrange(received, [], layout=layout, expert_capacity=2, align=8)
        assert placed.offsets.tolist() == [0] and placed.slot_rows.numel() == 0 and placed.routes.shape == (0, 2)


def test_partial_sums_are_in_top_k_order_and_rounded_once() -> None:
    """2^24 + 1 - 2^24 in float32 is 0 in this order, 1 in another."""
    sent = [Tokens(torch.zeros(1, 1), torch.tensor([[1, 0, 2]]))]
    received = reference.dispatch(sent, 0, (0, 0, 0))
    placed = reference.arrange(received, [0, 1, 2], layout="grouped")
    outputs = torch.tensor([[1.0], [2.0**24], [-(2.0**24)]])  # of experts 0, 1, 2
    assert reference.gather_rows(placed, outputs).item() == 0
    half = torch.tensor([[1.0], [256.0], [1.0]], dtype=torch.bfloat16)
    assert reference.gather_rows(placed, half).item() == 258
