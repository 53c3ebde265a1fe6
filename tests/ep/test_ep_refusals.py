# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Wrong calls are refused before anything is sent, in words that name the argument, its value and what is allowed;
the next right call works. What only all ranks together can know is in test_ep_disagreement.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from ep_cases import open_context
from ep_crew import refusal
from mori.ep import Dispatcher
from mori.errors import CapacityError, ConfigError
from mori.testing import run_ranks

pytestmark = pytest.mark.timeout(60)

HIDDEN, EXPERTS, TOPK, MAX, TOKENS = 16, 8, 2, 6, 4
BF16, F32, I32 = torch.bfloat16, torch.float32, torch.int32


class Row(NamedTuple):
    name: str
    call: Callable[[Any], Any]  # of Lab
    words: tuple[str, ...]
    kind: type[Exception] = ConfigError


class Lab:
    """What a rank has at hand: a context, dispatchers and a result."""

    def __init__(self, ctx: Any) -> None:
        self.ctx = ctx
        self.moe = self.make()
        self.scaled = self.make(dtype=torch.float8_e4m3fn, scales=(3, F32))
        self.x = torch.ones(TOKENS, HIDDEN, dtype=BF16)
        self.ids = torch.arange(TOKENS * TOPK, dtype=I32).view(TOKENS, TOPK) % EXPERTS
        self.weights = torch.ones(TOKENS, TOPK)
        self.recv = self.moe.dispatch(self.x, self.ids, self.weights)
        self.bare = self.moe.dispatch(self.x, self.ids)
        self.rows = torch.ones_like(self.recv.x)

    def make(self, hidden: Any = HIDDEN, experts: Any = EXPERTS, **options: Any) -> Dispatcher:
        return Dispatcher(self.ctx, hidden, experts, **{"topk": TOPK, "max_tokens": MAX, "live_results": 3, **options})

    def send(self, x: Any = None, ids: Any = None, weights: Any = None, **options: Any) -> Any:
        return self.moe.dispatch(self.x if x is None else x, self.ids if ids is None else ids, weights, **options)

    def join(self, rows: Any = None, **options: Any) -> Any:
        return self.moe.combine(self.rows if rows is None else rows, self.recv.routing, **options)

    def shifted(self, rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
        """A contiguous tensor that begins one element behind an aligned address."""
        return torch.zeros(rows * columns + 1, dtype=dtype)[1:].view(rows, columns)


def meta(*shape: int, dtype: torch.dtype = BF16) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


ROWS = [
    # of the constructor
    Row("hidden-0", lambda lab: lab.make(0), ("hidden=0", "1 to")),
    Row("hidden-text", lambda lab: lab.make("16"), ("hidden='16'", "integer")),
    Row("hidden-12-bytes", lambda lab: lab.make(6), ("hidden=6", "12 bytes", "multiple of 16")),
    Row("hidden-fp4-odd", lambda lab: lab.make(33, dtype=torch.uint8), ("hidden=33", "even")),
    Row("hidden-fp4-row", lambda lab: lab.make(16, dtype=torch.uint8), ("hidden=16", "8 bytes", "multiple of 16")),
    Row("experts-0", lambda lab: lab.make(experts=0), ("num_experts=0",)),
    Row("experts-2^40", lambda lab: lab.make(experts=1 << 40), ("num_experts=1099511627776", "2^31")),
    Row("topk-0", lambda lab: lab.make(topk=0), ("topk=0",)),
    Row("topk-true", lambda lab: lab.make(topk=True), ("topk=True",)),
    Row("topk-above-experts", lambda lab: lab.make(topk=9), ("topk=9", "num_experts=8")),
    Row("topk-33", lambda lab: lab.make(experts=64, topk=33), ("topk=33", "1 to 32")),
    Row("max-tokens-negative", lambda lab: lab.make(max_tokens=-1), ("max_tokens=-1",)),
    Row("max-tokens-2^31", lambda lab: lab.make(max_tokens=1 << 31), ("max_tokens=2147483648", "2^31")),
    Row("live-results-0", lambda lab: lab.make(live_results=0), ("live_results=0",)),
    Row("capacity-0", lambda lab: lab.make(capacity=0), ("capacity=0", "1 to")),
    Row("capacity-float", lambda lab: lab.make(capacity=2.5), ("capacity=2.5",)),
    Row("capacity-2^32", lambda lab: lab.make(capacity=1 << 32), ("capacity=4294967296", "2^32")),
    Row("dtype-int32", lambda lab: lab.make(dtype=I32), ("dtype=torch.int32", "bfloat16", "float8_e4m3fn")),
    Row("combine-dtype", lambda lab: lab.make(combine_dtype=torch.float8_e4m3fn), ("combine_dtype", "bfloat16")),
    Row("scales-0", lambda lab: lab.make(scales=(0, F32)), ("scales=(0",)),
    Row("scales-not-a-type", lambda lab: lab.make(scales=(4, "float32")), ("scales=(4", "columns")),
    Row("scales-number", lambda lab: lab.make(scales=4), ("scales=4", "(columns, dtype)")),
    Row("map-short", lambda lab: lab.make(expert_map=[0] * 7), ("expert_map has 7", "num_experts is 8")),
    Row("map-rank-2", lambda lab: lab.make(expert_map=[0] * 7 + [2]), ("expert_map[7]=2", "0..1")),
    Row("map-negative", lambda lab: lab.make(expert_map=[-1] + [0] * 7), ("expert_map[0]=-1",)),
    Row("map-words", lambda lab: lab.make(expert_map=["a"] * 8), ("expert_map",)),
    Row("blocks-negative", lambda lab: lab.make(blocks=-1), ("blocks=-1",)),
    Row("warps-huge", lambda lab: lab.make(warps=1 << 40), ("warps=1099511627776",)),
    # of dispatch
    Row("x-list", lambda lab: lab.send([[1.0] * HIDDEN]), ("x must be a torch tensor", "list")),
    Row("x-dtype", lambda lab: lab.send(lab.x.half()), ("x is torch.float16", "bfloat16")),
    Row("x-hidden", lambda lab: lab.send(lab.x[:, :8].contiguous()), ("x has shape (4, 8)", "(tokens, 16)")),
    Row("x-1d", lambda lab: lab.send(lab.x[0]), ("x has shape (16,)",)),
    Row("x-strided", lambda lab: lab.send(torch.ones(TOKENS, 32, dtype=BF16)[:, ::2]), ("x has strides", "contiguous")),
    Row("x-transposed", lambda lab: lab.send(torch.ones(HIDDEN, TOKENS, dtype=BF16).T), ("x has strides (1, 4)",)),
    Row("x-misaligned", lambda lab: lab.send(lab.shifted(TOKENS, HIDDEN, BF16)), ("x begins at 0x", "16 bytes")),
    Row("x-other-device", lambda lab: lab.send(meta(TOKENS, HIDDEN)), ("x is on meta", "cpu")),
    Row("x-too-many", lambda lab: lab.send(torch.ones(7, HIDDEN, dtype=BF16)), ("x has 7 tokens", "max_tokens is 6")),
    Row("ids-float", lambda lab: lab.send(ids=lab.ids.float()), ("topk_ids is torch.float32", "int32, int64")),
    Row("ids-int16", lambda lab: lab.send(ids=lab.ids.short()), ("topk_ids is torch.int16",)),
    Row("ids-rows", lambda lab: lab.send(ids=lab.ids[:-1]), ("topk_ids has shape (3, 2)", "(4, 2)")),
    Row("ids-topk", lambda lab: lab.send(ids=lab.ids.repeat(1, 2)), ("topk_ids has shape (4, 4)",)),
    Row("ids-strided", lambda lab: lab.send(ids=lab.ids.repeat(1, 2)[:, ::2]), ("topk_ids has strides",)),
    Row("ids-other-device", lambda lab: lab.send(ids=meta(TOKENS, TOPK, dtype=I32)), ("topk_ids is on meta",)),
    Row("weights-bf16", lambda lab: lab.send(weights=lab.weights.bfloat16()), ("topk_weights is torch.bfloat16",)),
    Row("weights-shape", lambda lab: lab.send(weights=lab.weights[:2]), ("topk_weights has shape (2, 2)",)),
    Row("scales-unasked", lambda lab: lab.send(scales=torch.ones(TOKENS, 3)), ("scales", "has none")),
    Row("scales-missing", lambda lab: lab.scaled.dispatch(lab.x.to(torch.float8_e4m3fn), lab.ids), ("scales=None",)),
    Row(
        "scales-shape",
        lambda lab: lab.scaled.dispatch(lab.x.to(torch.float8_e4m3fn), lab.ids, scales=torch.ones(TOKENS, 4)),
        ("scales has shape (4, 4)", "(4, 3)"),
    ),
    Row(
        "scales-dtype",
        lambda lab: lab.scaled.dispatch(lab.x.to(torch.float8_e4m3fn), lab.ids, scales=torch.ones(TOKENS, 3).half()),
        ("scales is torch.float16", "float32"),
    ),
    # of combine
    Row("rows-dtype", lambda lab: lab.join(lab.rows.to(torch.float8_e4m3fn)), ("rows is torch.float8_e4m3fn",)),
    Row("rows-fp32-into-bf16", lambda lab: lab.join(lab.rows.float()), ("rows are torch.float32", "combine_dtype")),
    Row("rows-hidden", lambda lab: lab.join(lab.rows[:, :8].contiguous()), ("rows has shape", "16")),
    Row("rows-few", lambda lab: lab.join(lab.rows[:1]), ("rows has 1 rows", "the routing brought")),
    Row("rows-strided", lambda lab: lab.join(lab.rows.repeat(1, 2)[:, ::2]), ("rows has strides",)),
    Row("rows-misaligned", lambda lab: lab.join(lab.shifted(12, HIDDEN, BF16)), ("rows begins at 0x",)),
    Row("bias-shape", lambda lab: lab.join(bias=lab.x[:2]), ("bias has shape (2, 16)", "(4, 16)")),
    Row("bias-dtype", lambda lab: lab.join(bias=lab.x.float()), ("bias is torch.float32", "bfloat16")),
    Row("out-shape", lambda lab: lab.join(out=torch.empty(5, HIDDEN, dtype=BF16)), ("out has shape (5, 16)",)),
    Row("out-dtype", lambda lab: lab.join(out=lab.x.float()), ("out is torch.float32",)),
    Row("out-strided", lambda lab: lab.join(out=lab.x.repeat(1, 2)[:, ::2]), ("out has strides",)),
    Row("out-other-device", lambda lab: lab.join(out=meta(TOKENS, HIDDEN)), ("out is on meta",)),
    Row(
        "weights-not-dispatched",
        lambda lab: lab.moe.combine(lab.rows, lab.bare.routing, apply_weights=True),
        ("apply_weights", "no topk_weights"),
    ),
]


def refuse_all(rank: int, world_size: int, uid: bytes) -> dict[str, str]:
    wrong = {}
    with open_context(rank, world_size, uid) as ctx:
        lab = Lab(ctx)
        for row in ROWS:
            error = refusal(lambda row=row: row.call(lab))
            if not isinstance(error, row.kind):
                wrong[row.name] = f"raised {error!r}, wanted {row.kind.__name__}"
            elif missing := [word for word in row.words if word not in str(error)]:
                wrong[row.name] = f"{missing} not in {str(error)!r}"
            # Nothing of it has left this rank: the others, one row further or behind, are in step.
            y = lab.moe.combine(lab.rows, lab.recv.routing, release=False)
            if not torch.equal(y, y[:1].expand_as(y)) or float(y[0, 0]) not in (1, 2):
                wrong[row.name] = "the next good call gave a wrong sum"
    return wrong


@pytest.fixture(scope="module")
def refused() -> list[dict[str, str]]:
    return run_ranks(refuse_all, 2, timeout=50)


@pytest.mark.parametrize("name", [row.name for row in ROWS])
def test_refused_in_words(refused: list[dict[str, str]], name: str) -> None:
    assert [wrong.get(name) for wrong in refused] == [None, None]


def test_the_table_has_no_double() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS) >= 30


def ask_for_petabytes(rank: int, world_size: int, uid: bytes) -> str:
    with open_context(rank, world_size, uid) as ctx:
        error = refusal(lambda: Dispatcher(ctx, 1 << 30, 8, topk=2, max_tokens=1 << 20))
    assert isinstance(error, CapacityError), error
    return str(error)


def test_more_memory_than_there_is() -> None:
    assert run_ranks(ask_for_petabytes, 1, timeout=30)[0]
