# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What only the ranks together can know to be wrong is refused on all of them, nothing is written, and the next call
works: too many rows, ids out of range, calls that differ between ranks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ep_cases import Case, compare_received, expert_map, make, tokens_of
from ep_crew import Crew, refusal
from mori.ep import Dispatcher, reference
from mori.errors import CapacityError, ConfigError, MoriError

pytestmark = pytest.mark.timeout(60)

CASE = Case("disagreement", tokens=(6,), masked=0)
WORLD = 3
MAP = expert_map(CASE, WORLD)
SENT = [tokens_of(CASE, rank) for rank in range(WORLD)]
POISON = 0x5A


def good_call(moe: Dispatcher) -> list[str]:
    rank = moe.ctx.rank
    recv = moe.dispatch(SENT[rank].x, SENT[rank].topk_ids, SENT[rank].topk_weights)
    return compare_received(recv, reference.dispatch(SENT, rank, MAP))


def each_with(crew: Crew, work: Any, **options: Any) -> list[Any]:
    def body(ctx: Any) -> Any:
        with make(ctx, CASE, **{"debug": False, **options}) as moe:
            return work(moe)

    return crew.each(body)


class Untouched:
    """Poisons all receive buffers of a dispatcher, and looks whether they are still that way."""

    def __init__(self, moe: Dispatcher) -> None:
        self.x, self.topk_ids, self.topk_weights, self.src = [], [], [], []
        rank = moe.ctx.rank
        held = []
        try:
            while True:
                held.append(moe.dispatch(SENT[rank].x[:0], SENT[rank].topk_ids[:0], SENT[rank].topk_weights[:0]))
        except CapacityError:
            pass
        self.storages = [recv.x.untyped_storage().data_ptr() for recv in held]
        self.sizes = [recv.x.untyped_storage().nbytes() for recv in held]
        for recv in held:
            torch.empty(0, dtype=torch.uint8).set_(recv.x.untyped_storage()).fill_(POISON)

    def check(self) -> bool:
        import ctypes

        return all(
            set(ctypes.string_at(start, size)) == {POISON}
            for start, size in zip(self.storages, self.sizes, strict=True)
        )


@pytest.mark.parametrize("spare", [0, -1], ids=["fits", "one-row-too-many"])
def test_capacity(crew3: Crew, spare: int) -> None:
    most = int(reference.counts(SENT, MAP).sum(0).max())
    fullest = int(reference.counts(SENT, MAP).sum(0).argmax())

    def work(moe: Dispatcher) -> Any:
        untouched = Untouched(moe)
        if spare == 0:
            return good_call(moe)
        errors = [refusal(lambda: good_call(moe)) for _ in range(3)]
        clean = untouched.check()
        few = SENT[moe.ctx.rank]
        recv = moe.dispatch(few.x[:1], few.topk_ids[:1], few.topk_weights[:1])
        wanted = reference.dispatch(
            [reference.Tokens(t.x[:1], t.topk_ids[:1], t.topk_weights[:1]) for t in SENT], moe.ctx.rank, MAP
        )
        return errors, clean, compare_received(recv, wanted)

    outcome = each_with(crew3, work, capacity=most + spare)
    if spare == 0:
        assert outcome == [[]] * WORLD
        return
    for errors, clean, after in outcome:
        for error in errors:
            assert isinstance(error, CapacityError)
            for words in (f"rank {fullest} ", f"{most} rows", f"capacity is {most - 1}"):
                assert words in str(error)
        assert clean, "a refused dispatch wrote into a receive buffer"
        assert after == []


@pytest.mark.parametrize("id_type", [torch.int32, torch.int64], ids=["int32", "int64"])
@pytest.mark.parametrize("bad", [CASE.experts, -2, 1 << 30, -(1 << 31)])
def test_an_id_out_of_range_on_one_rank(crew3: Crew, bad: int, id_type: torch.dtype) -> None:
    def work(moe: Dispatcher) -> Any:
        mine = SENT[moe.ctx.rank]
        ids = mine.topk_ids.to(id_type, copy=True)
        if moe.ctx.rank == 1:
            ids[3, 1] = bad
        untouched = Untouched(moe)
        error = refusal(lambda: moe.dispatch(mine.x, ids, mine.topk_weights))
        return error, untouched.check(), good_call(moe)

    for error, clean, after in each_with(crew3, work):
        assert isinstance(error, ConfigError)
        for words in ("topk_ids of rank 1", str(bad), f"0 to {CASE.experts - 1}", "-1 for none"):
            assert words in str(error)
        assert clean and after == []


def test_a_64_bit_id_is_not_cut_to_a_good_one(crew3: Crew) -> None:
    def work(moe: Dispatcher) -> Any:
        mine = SENT[moe.ctx.rank]
        ids = mine.topk_ids.long()
        ids[0, 0] += 1 << 32
        error = refusal(lambda: moe.dispatch(mine.x, ids, mine.topk_weights))
        return error, good_call(moe)

    for error, after in each_with(crew3, work):
        assert isinstance(error, ConfigError) and "topk_ids of rank 0" in str(error) and after == []


def test_an_expert_named_twice_is_visited_once(crew3: Crew) -> None:
    def work(moe: Dispatcher) -> Any:
        mine = SENT[moe.ctx.rank]
        ids = mine.topk_ids[:, :1].expand(-1, 2).contiguous()
        return int(moe.dispatch(mine.x, ids, mine.topk_weights).routing.sent.sum())

    assert each_with(crew3, work) == [6] * WORLD


CALLS = {  # what rank 1 does differently
    "id-type": lambda moe, t: moe.dispatch(t.x, t.topk_ids.long(), t.topk_weights),
    "no-weights": lambda moe, t: moe.dispatch(t.x, t.topk_ids),
}


@pytest.mark.parametrize("what", CALLS)
def test_calls_that_differ(crew3: Crew, what: str) -> None:
    def work(moe: Dispatcher) -> Any:
        mine = SENT[moe.ctx.rank]
        untouched = Untouched(moe)
        if moe.ctx.rank == 1:
            error = refusal(lambda: CALLS[what](moe, mine))
        else:
            error = refusal(lambda: moe.dispatch(mine.x, mine.topk_ids, mine.topk_weights))
        return error, untouched.check(), good_call(moe)

    for rank, (error, clean, after) in enumerate(each_with(crew3, work)):
        assert isinstance(error, ConfigError) and f"rank {0 if rank == 1 else 1} " in str(error)
        assert clean and after == []


def test_combined_types_that_differ(crew3: Crew) -> None:
    def work(moe: Dispatcher) -> Any:
        mine = SENT[moe.ctx.rank]
        recv = moe.dispatch(mine.x, mine.topk_ids)
        rows = torch.ones_like(recv.x)
        out = torch.full_like(mine.x, 7)
        other = rows.half() if moe.ctx.rank == 1 else rows
        error = refusal(lambda: moe.combine(other, recv.routing, out=out.to(other.dtype) if moe.ctx.rank == 1 else out))
        y = moe.combine(rows, recv.routing)  # a refused combine leaves the rows for another
        return error, bool((out == 7).all()), float(y.min())

    for rank, (error, clean, least) in enumerate(each_with(crew3, work)):
        assert isinstance(error, ConfigError) and f"rank {0 if rank == 1 else 1} " in str(error)
        assert clean and least >= 1


SETTINGS: dict[str, tuple[dict[str, Any], str]] = {  # what rank 1 asks for
    "hidden": ({"hidden": 32}, "hidden"),
    "experts": ({"experts": 9}, "num_experts"),
    "topk": ({"topk": 1}, "topk"),
    "max-tokens": ({"max_tokens": 9}, "max_tokens"),
    "dtype": ({"dtype": "float16"}, "dtype"),
    "combine-dtype": ({"combine_dtype": "float32"}, "combine_dtype"),
    "scales": ({"scales": (1, "float32")}, "scales"),
    "capacity": ({"capacity": 20}, "capacity"),
    "expert-map": ({"placement": "interleaved"}, "expert_map"),
}


@pytest.mark.parametrize("what", SETTINGS)
def test_settings_that_differ(crew3: Crew, what: str) -> None:
    import dataclasses

    changes, field = SETTINGS[what]

    def work(ctx: Any) -> MoriError | None:
        case = dataclasses.replace(CASE, **changes) if ctx.rank == 1 else CASE
        return refusal(lambda: make(ctx, case))

    for error in crew3.each(work):
        assert isinstance(error, ConfigError) and field in str(error) and "rank 1" in str(error), error


def test_the_context_is_as_good_as_before(crew3: Crew) -> None:
    assert each_with(crew3, good_call) == [[]] * WORLD
