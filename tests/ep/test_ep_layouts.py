# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The layouts by expert: every selection lands in its slot, padding is zero, and combine sums the slots of a row as the
reference does; for every kind of routing, with and without weights, on fast and lane-accurate CPUs."""

from __future__ import annotations

import dataclasses

import pytest
from ep_cases import Case, check, table

pytestmark = pytest.mark.timeout(120)

BASE = (
    Case("plain"),
    Case("weighted", apply_weights=True, topk=4),
    Case("weighted-int64", apply_weights=True, topk=4, ids="int64"),
    Case("bias-out", bias=True, out=True, topk=3),
    Case("topk-1", topk=1),
    Case("topk-8-of-8", topk=8, masked=0),
    Case("topk-9", topk=9, experts=40, ids="int64", apply_weights=True),
    Case("topk-32", topk=32, experts=33, tokens=(3, 1)),
    Case("one-expert", experts=1, topk=1, masked=0),
    Case("experts-not-divisible", experts=19, topk=3),
    Case("fewer-experts-than-ranks", experts=2, topk=2),
    Case("many-experts", experts=517, topk=6, tokens=(31, 2, 64), max_tokens=64, rounds=1),
    Case("all-experts-on-the-last-rank", placement="one-rank", topk=4),
    Case("experts-scattered", placement="scattered", experts=60, topk=8),
    Case("hot", routing="hot", topk=2, masked=0),
    Case("nothing-goes-anywhere", routing="nowhere"),
    Case("sparse", routing="sparse", topk=4, apply_weights=True, bias=True),
    Case("no-tokens-anywhere", tokens=(0,)),
    Case("no-tokens-on-some-ranks", tokens=(0, 6, 0, 0, 1), rounds=4),
    Case("no-weights", weights=False),
    Case("more-tokens-than-warps", tokens=(130, 7, 250), max_tokens=250, blocks=3, warps=2, rounds=1),
    Case("long-row", hidden=7168, tokens=(3, 9), max_tokens=9, rounds=1),
    Case("fp32", dtype="float32", apply_weights=True, topk=4, hidden=36),
    Case("fp16-special", dtype="float16", special=True, topk=4, hidden=64, apply_weights=True),
    Case("fp8-scales", dtype="float8_e4m3fn", hidden=384, scales=(3, "float32"), topk=4),
    Case("fp4-17-scales", dtype="uint8", hidden=544, scales=(17, "uint8"), topk=3),
)


def with_layout(case: Case, layout: str, **changes: object) -> Case:
    return dataclasses.replace(case, layout=layout, name=f"{case.name}-{layout}", **changes)


CASES = table(
    *(with_layout(case, "expert") for case in BASE),
    *(with_layout(case, "grouped", align=(1, 4, 8)[i % 3], zero_padding=i % 2 == 0) for i, case in enumerate(BASE)),
    Case("aligned-128", layout="grouped", align=128, topk=3),
    Case("aligned-128-zeros", layout="grouped", align=128, topk=3, zero_padding=True),
    Case("aligned-5", layout="grouped", align=5, topk=3, tokens=(8,), zero_padding=True),
    Case(
        "aligned-17-zeros-and-scales",
        layout="grouped",
        align=17,
        topk=3,
        dtype="float8_e4m3fn",
        hidden=384,
        scales=(3, "float32"),
        zero_padding=True,
    ),
    Case("slots-just-enough", layout="grouped", align=4, slots=256, tokens=(8,), experts=16),
    Case("capacity-of-an-expert", layout="expert", routing="hot", masked=0, tokens=(4,), expert_capacity=64),
    Case("capacity-rounded-up", layout="expert", expert_capacity=130, align=16),
)
LANES = ("weighted", "topk-9", "sparse", "no-tokens-on-some-ranks", "fp8-scales", "fp4-17-scales", "experts-scattered")
FEW = table(*(CASES[f"{name}-{layout}"] for name in LANES for layout in ("expert", "grouped")))
ONE_ROUND = table(*(dataclasses.replace(case, rounds=1) for case in FEW.values()))
SMALL = table(
    *(
        dataclasses.replace(CASES[f"{name}-{layout}"], blocks=blocks, warps=2)
        for name in LANES
        for layout, blocks in (("expert", 2), ("grouped", 3))
    )
)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("world_size", [1, 3], ids="{}ranks".format)
def test_processes(world_size: int, name: str) -> None:
    check(CASES, name, world_size)


@pytest.mark.parametrize("name", ONE_ROUND)
def test_eight_ranks(name: str) -> None:
    check(ONE_ROUND, name, 8)


@pytest.mark.parametrize("name", FEW)
def test_threads(name: str) -> None:
    check(FEW, name, 4, mode="thread")


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("lanes", [32, 64], ids="w{}".format)
def test_lanes(lanes: int, name: str) -> None:
    check(SMALL, name, 3, lanes=lanes)
