# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The same results with warps of 32 and 64 lanes, as on GPUs, over launches of several blocks and warps."""

from __future__ import annotations

import pytest
from ep_cases import Case, check, table

pytestmark = pytest.mark.timeout(120)

CASES = table(
    Case("plain-1x1", blocks=1, warps=1),
    Case("plain-2x2", blocks=2, warps=2),
    Case("plain-3x4", blocks=3, warps=4),
    Case("topk-9-int64", topk=9, experts=40, ids="int64", blocks=2, warps=2),
    Case("topk-32", topk=32, experts=33, blocks=2, warps=2, tokens=(3, 1)),
    Case("long-row", hidden=2056, tokens=(2, 3), max_tokens=3, blocks=2, warps=2),
    Case("many-tokens", tokens=(70, 7, 40), max_tokens=70, blocks=2, warps=3, rounds=1),
    Case("few-tokens-many-warps", tokens=(1, 0), blocks=4, warps=2, hidden=4096),
    Case("nothing", tokens=(0,), blocks=2, warps=2),
    Case("fp8-3-scales", dtype="float8_e4m3fn", hidden=384, scales=(3, "float32"), blocks=2, warps=2),
    Case("fp4-17-scales", dtype="uint8", hidden=544, scales=(17, "uint8"), blocks=2, warps=2),
    Case("fp16-special", dtype="float16", special=True, hidden=520, blocks=2, warps=2),
    Case("fp32-weighted-bias-out", dtype="float32", apply_weights=True, bias=True, out=True, blocks=2, warps=2),
    Case("bf16-weighted", apply_weights=True, topk=4, blocks=2, warps=2),
)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("world_size", [1, 2, 3, 5], ids="{}ranks".format)
@pytest.mark.parametrize("lanes", [32, 64], ids="w{}".format)
def test_lanes(lanes: int, world_size: int, name: str) -> None:
    check(CASES, name, world_size, lanes=lanes)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("lanes", [32, 64], ids="w{}".format)
def test_lanes_in_threads(lanes: int, name: str) -> None:
    check(CASES, name, 3, lanes=lanes, mode="thread")
