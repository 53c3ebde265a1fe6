# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Rows narrowed by dispatch itself have the bits of the reference, rows and scales, in every layout, whatever the type
they come from; combine returns sums of wide rows as ever."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from ep_cases import Case, check, table
from mori.ep import RECIPES, Quantize

pytestmark = pytest.mark.timeout(120)


def cases() -> list[Case]:
    found = []
    for i, (name, recipe) in enumerate(RECIPES.items()):
        for j, source in enumerate(("bfloat16", "float16", "float32")):
            layout: dict[str, Any] = [{}, {"layout": "expert"}, {"layout": "grouped", "align": 4}][(i + j) % 3]
            short = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}[source]
            found.append(
                Case(f"{name}-{short}-{layout.get('layout', 'rank')}", dtype=source, hidden=384, topk=3, **layout)
                if recipe is not None
                else Case("")
            )
            found[-1] = dataclasses.replace(found[-1], quantize=name)
    return found


CASES = table(
    *cases(),
    Case("column-major", quantize=Quantize(column_major=True), hidden=384, topk=3),
    Case("column-major-expert", quantize=Quantize(column_major=True), hidden=384, topk=3, layout="expert"),
    Case(
        "column-major-grouped", quantize=Quantize(scale="ue8m0", column_major=True), hidden=384, topk=3,
        layout="grouped", align=4,
    ),
    Case("7168", quantize="fp8", hidden=7168, topk=8, experts=32, tokens=(9, 2), max_tokens=9),
    Case("7168-ue8m0", quantize="fp8_ue8m0", hidden=7168, topk=8, experts=32, tokens=(9, 2), max_tokens=9),
    Case("fp16-back", quantize="fp8", hidden=256, combine_dtype="float16", apply_weights=True),
    Case("no-tokens", quantize="fp8", hidden=256, tokens=(0, 3)),
)  # fmt: skip
LANES = table(*(dataclasses.replace(case, blocks=2, warps=2) for case in CASES.values() if "7168" not in case.name))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("world_size", [1, 3], ids="{}ranks".format)
def test_processes(world_size: int, name: str) -> None:
    check(CASES, name, world_size)


@pytest.mark.parametrize("name", LANES)
@pytest.mark.parametrize("lanes", [32, 64], ids="w{}".format)
def test_lanes(lanes: int, name: str) -> None:
    check(LANES, name, 2, lanes=lanes)
