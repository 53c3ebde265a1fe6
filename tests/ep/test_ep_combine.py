# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Combine gives the same bits however it is spread over a launch: who returns rows, who sums, in what pieces."""

from __future__ import annotations

from typing import Any

import pytest
from ep_cases import Case, open_context, run_case
from mori.ep import Dispatcher
from mori.testing import run_ranks

pytestmark = pytest.mark.timeout(120)

CASES = [
    Case("uneven", topk=4, tokens=(40, 7, 23, 0, 31), max_tokens=40, hidden=136, rounds=3),
    Case("few", topk=3, tokens=(1, 2, 0), hidden=2056, weights=True, apply_weights=True, rounds=3),
    Case("bias-fp32", dtype="float32", topk=8, tokens=(9, 12), max_tokens=12, bias=True, out=True, rounds=3),
]
SPREADS = {
    "blocks-together": {"mode": 1},
    "blocks-together-one-sends": {"mode": 1, "senders": 1},
    "blocks-together-all-send": {"mode": 1, "senders": 4, "unit": 3, "parts": 5},
    "tickets": {"mode": 2},
    "tickets-one-warp-sends": {"mode": 2, "senders": 1, "sender_warps": 1, "unit": 5},
    "tickets-two-blocks-send": {"mode": 2, "senders": 2, "unit": 1, "parts": 7},
    "tickets-one-block": {"mode": 2, "blocks": 1},
    "in-turn": {"unit": 1, "parts": 3},
    "in-turn-large-units": {"unit": 100, "senders": 3},
}


def spread_out(rank: int, world_size: int, uid: bytes) -> dict[str, str]:
    outcome = {}
    with open_context(rank, world_size, uid, heap_bytes=8 << 20) as ctx:
        for case in CASES:
            for name, spread in SPREADS.items():

                def tune(moe: Dispatcher, spread: dict[str, int] = spread) -> None:
                    tuning: Any = moe._core.combine_tuning
                    for field, value in spread.items():
                        setattr(tuning, field, value)

                case_4x2 = Case(**{**case.__dict__, "blocks": 4, "warps": 2})
                outcome[f"{case} {name}"] = run_case(ctx, case_4x2, before=tune)
    return outcome


@pytest.mark.parametrize("world_size", [1, 2, 3, 5], ids="{}ranks".format)
@pytest.mark.parametrize("lanes", [1, 32, 64], ids="w{}".format)
def test_the_spread_does_not_matter(lanes: int, world_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MORI_CPU_LANES", str(lanes))
    outcome = run_ranks(spread_out, world_size, mode="thread", timeout=100)
    wrong = [f"rank {r}, {name}: {text}" for r, by_name in enumerate(outcome) for name, text in by_name.items() if text]
    assert not wrong, "\n".join(wrong)
