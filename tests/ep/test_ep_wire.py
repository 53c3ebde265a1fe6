# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""combine(wire="fp8", "fp8_block"): sums have the bits of the reference, where rows of other ranks come as fp8."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from ep_cases import Case, check, make, table, tokens_of
from ep_crew import Crew, refusal
from mori.errors import ConfigError

pytestmark = pytest.mark.timeout(60)

SHAPES = [
    Case("plain", hidden=256, topk=3),
    Case("short-blocks", hidden=272, topk=3, apply_weights=True, bias=True),
    Case("one-piece", hidden=16, weights=False),
    Case("expert", layout="expert", hidden=256, topk=3, apply_weights=True),
    Case("grouped", layout="grouped", align=4, hidden=400, topk=4, bias=True),
    Case("halves", hidden=256, two_phase=True),
    Case("halves-grouped", layout="grouped", hidden=128, two_phase=True),
    Case("masked", hidden=256, topk=3, inactive=(1,), tokens=(6,)),
    Case("masked-halves", hidden=128, topk=3, inactive=(1,), tokens=(6,), two_phase=True),
    Case("special", hidden=256, special=True),
    Case("special-expert", layout="expert", hidden=128, topk=3, special=True),
    Case("no-tokens", hidden=128, tokens=(0, 3)),
    Case("7168", hidden=7168, topk=8, experts=32, tokens=(9, 2), max_tokens=9),
    Case("narrow-both-ways", hidden=256, quantize="fp8", topk=3),
]
CASES = table(
    *(
        dataclasses.replace(c, name=f"{c.name}-{wire}", wire=wire, rounds=1)
        for wire in ("fp8", "fp8_block")
        for c in SHAPES
    )
)
LANES = table(*(dataclasses.replace(c, blocks=2, warps=2) for c in CASES.values() if "7168" not in c.name))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("world_size", [3], ids="{}ranks".format)
def test_processes(world_size: int, name: str) -> None:
    check(CASES, name, world_size)


@pytest.mark.parametrize("name", LANES)
@pytest.mark.parametrize("lanes", [32, 64], ids="w{}".format)
def test_lanes(lanes: int, name: str) -> None:
    check(LANES, name, 3, lanes=lanes)


PLAIN = Case("wire", hidden=256, tokens=(6,), masked=0)


def call(ctx: Any, moe: Any, wire: Any, dtype: torch.dtype = torch.bfloat16) -> Any:
    sent = tokens_of(PLAIN, ctx.rank)
    recv = moe.dispatch(sent.x, sent.topk_ids)
    rows = torch.ones(recv.x.shape, dtype=dtype)
    error = refusal(lambda: moe.combine(rows, recv.routing, wire=wire))
    recv.release()
    return error


def test_ranks_with_different_wires_are_refused(crew3: Crew) -> None:
    def work(ctx: Any) -> Any:
        with make(ctx, PLAIN) as moe:
            return call(ctx, moe, ["fp8", "fp8_block", None][ctx.rank]), call(ctx, moe, "fp8")

    for error, after in crew3.each(work):
        assert isinstance(error, ConfigError) and after is None


@pytest.mark.parametrize(
    ("wire", "dtype", "words"),
    [
        ("bf8", torch.bfloat16, "wire='bf8' is not one of None, fp8, fp8_block"),
        ("fp8", torch.float16, "only bfloat16 is narrowed"),
    ],
    ids=["name", "float16"],
)
def test_wires_of_the_wrong_form(crew3: Crew, wire: str, dtype: torch.dtype, words: str) -> None:
    def work(ctx: Any) -> Any:
        with make(ctx, PLAIN) as moe:
            return call(ctx, moe, wire, dtype)

    assert all(words in str(error) for error in crew3.each(work))


def test_a_hidden_size_that_does_not_divide_is_refused(crew3: Crew) -> None:
    case = dataclasses.replace(PLAIN, hidden=24)

    def work(ctx: Any) -> Any:
        sent = tokens_of(case, ctx.rank)
        with make(ctx, case) as moe:
            recv = moe.dispatch(sent.x, sent.topk_ids)
            return refusal(lambda: moe.combine(recv.x, recv.routing, wire="fp8"))

    assert all("hidden=24" in str(error) for error in crew3.each(work))


def test_gradients_pass_as_if_rows_were_wide(crew3: Crew) -> None:
    def work(ctx: Any) -> Any:
        sent = tokens_of(PLAIN, ctx.rank)
        grads = []
        with make(ctx, PLAIN, live_results=3) as moe:
            for wire in (None, "fp8_block"):
                x = torch.linspace(-3, 3, len(sent.x) * 256).view(-1, 256).bfloat16().requires_grad_()
                recv = moe.dispatch(x, sent.topk_ids)
                y = moe.combine(recv.x * 2, recv.routing, wire=wire)
                y.backward(torch.ones_like(y))
                grads.append(x.grad)
                del recv, y
        return torch.equal(*grads)

    assert crew3.each(work) == [True] * 3
