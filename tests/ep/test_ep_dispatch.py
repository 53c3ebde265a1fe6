# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Every rank receives exactly the rows of the reference, in its order, and gets back the sums of the reference:
over world sizes, routings, placements of experts and shapes. Types are in test_ep_dtypes.py."""

from __future__ import annotations

import pytest
from ep_cases import Case, check, table

pytestmark = pytest.mark.timeout(120)

CASES = table(
    Case("plain"),
    Case("int64-ids", ids="int64"),
    Case("no-weights", weights=False),
    Case("row-of-16-bytes", hidden=8),
    Case("row-of-28672-bytes", hidden=14336, tokens=(2, 3), max_tokens=3),
    Case("topk-1", topk=1),
    Case("topk-8-of-8", topk=8, masked=0),
    Case("topk-9", topk=9, experts=40, ids="int64"),
    Case("topk-32", topk=32, experts=33),
    Case("one-expert", experts=1, topk=1, masked=0),
    Case("experts-not-divisible", experts=19, topk=3),
    Case("fewer-experts-than-ranks", experts=2, topk=2),
    Case("many-experts", experts=517, topk=6, tokens=(31, 2, 64), max_tokens=64),
    Case("all-experts-on-the-last-rank", placement="one-rank", topk=4),
    Case("experts-interleaved", placement="interleaved", topk=4),
    Case("experts-scattered", placement="scattered", experts=300, topk=8),
    Case("all-tokens-to-the-first-experts", routing="hot", topk=2, masked=0),
    Case("nothing-goes-anywhere", routing="nowhere"),
    Case("most-tokens-go-nowhere", routing="sparse"),
    Case("half-of-the-ids-masked", masked=0.5, topk=4),
    Case("no-tokens-anywhere", tokens=(0,)),
    Case("no-tokens-on-some-ranks", tokens=(0, 6, 0, 0, 1), rounds=4),
    Case("one-token-each", tokens=(1,), max_tokens=1),
    Case("max-tokens-on-all", tokens=(8,)),
    Case("more-tokens-than-warps", tokens=(130, 7, 250), max_tokens=250, blocks=3, warps=2),
    Case("fewer-tokens-than-blocks", tokens=(1, 2), blocks=4, warps=3),
    Case("capacity-just-enough", routing="hot", tokens=(4,), capacity=64, masked=0),
)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 8, 16], ids="{}ranks".format)
def test_processes(world_size: int, name: str) -> None:
    check(CASES, name, world_size)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("world_size", [2, 5], ids="{}ranks".format)
def test_threads(world_size: int, name: str) -> None:
    check(CASES, name, world_size, mode="thread")
