# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What a call or a dispatcher may be asked for besides: halves, masks of ranks, a cap of blocks, experts with several
copies, counted loads; each changes nothing else."""

from __future__ import annotations

import itertools

import pytest
from ep_cases import Case, check, table

pytestmark = pytest.mark.timeout(120)

LAYOUTS = ({}, {"layout": "expert"}, {"layout": "grouped", "align": 4})
OPTIONS = {
    "halves": {"two_phase": True, "rounds": 4},
    "one-block": {"call_blocks": 1, "blocks": 3, "warps": 2, "tokens": (40, 3), "max_tokens": 40},
    "replicated": {"placement": "replicated", "experts": 9, "topk": 3},
    "replicated-weighted": {"placement": "replicated", "experts": 9, "topk": 3, "apply_weights": True},
    "everywhere": {"placement": "everywhere", "topk": 3, "ids": "int64"},
    "load": {"count_load": True, "topk": 3, "rounds": 3},
    "load-replicated": {"count_load": True, "placement": "replicated", "experts": 9, "rounds": 3},
    "all": {
        "two_phase": True, "placement": "replicated", "experts": 9, "count_load": True, "apply_weights": True,
        "bias": True, "topk": 4, "rounds": 3,
    },
}  # fmt: skip
CASES = table(
    *(
        Case(f"{name}-{layout.get('layout', 'rank')}", **options, **layout)
        for (name, options), layout in itertools.product(OPTIONS.items(), LAYOUTS)
    )
)
MASKS = {"first": (0,), "last": (2,), "middle": (1,), "all-but-one": (0, 2)}
MASKED = table(
    *(
        Case(f"without-{name}-{layout.get('layout', 'rank')}", inactive=ranks, topk=3, rounds=3, **layout)
        for (name, ranks), layout in itertools.product(MASKS.items(), LAYOUTS)
    ),
    Case("masked-halves", inactive=(1,), two_phase=True, rounds=3),
    Case("masked-copies", inactive=(1,), placement="replicated", experts=9, count_load=True, apply_weights=True),
)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("world_size", [1, 3, 5], ids="{}ranks".format)
def test_processes(world_size: int, name: str) -> None:
    check(CASES, name, world_size)


@pytest.mark.parametrize("name", MASKED)
def test_masked_ranks(name: str) -> None:
    check(MASKED, name, 3)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("lanes", [32, 64], ids="w{}".format)
def test_lanes(lanes: int, name: str) -> None:
    check(CASES, name, 2, lanes=lanes)
