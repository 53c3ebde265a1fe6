# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The reference itself, against an example worked out by hand, and the example program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mori.ep import reference
from mori.ep.reference import Tokens, first_difference

pytestmark = pytest.mark.timeout(60)
ROOT = Path(__file__).resolve().parents[2]

# Experts 0 and 1 live on rank 0, expert 2 on rank 1.
MAP = (0, 0, 1)
SENT = [
    Tokens(  # both ranks; rank 0 twice over; nowhere
        torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]),
        torch.tensor([[0, 2], [1, 0], [-1, -1]]),
        torch.tensor([[0.5, 0.25], [2.0, 3.0], [9.0, 9.0]]),
    ),
    Tokens(torch.tensor([[7.0, 8.0]]), torch.tensor([[2, -1]]), torch.tensor([[1.0, 4.0]])),
]


def test_what_ranks_receive() -> None:
    first, second = (reference.dispatch(SENT, rank, MAP) for rank in (0, 1))
    assert first.x.tolist() == [[1, 2], [3, 4]] and second.x.tolist() == [[1, 2], [7, 8]]
    assert first.topk_ids.tolist() == [[0, -1], [1, 0]] and second.topk_ids.tolist() == [[-1, 2], [2, -1]]
    assert first.src.tolist() == [0, 1] and second.src.tolist() == [0, 1 << 32]
    assert first.counts.tolist() == [2, 0] and second.counts.tolist() == [1, 1]
    assert second.topk_weights is not None and second.topk_weights.tolist() == [[0.5, 0.25], [1.0, 4.0]]


def test_what_combine_returns() -> None:
    returned = [torch.tensor([[10.0, 20.0], [30.0, 40.0]]), torch.tensor([[1.0, 1.0], [2.0, 2.0]])]
    assert reference.combine(SENT, 0, MAP, returned).tolist() == [[11, 21], [30, 40], [0, 0]]
    assert reference.combine(SENT, 1, MAP, returned).tolist() == [[2, 2]]
    weighted = reference.combine(SENT, 0, MAP, returned, apply_weights=True, bias=torch.ones(3, 2))
    assert weighted.tolist() == [[6.25, 11.25], [151, 201], [1, 1]]


def test_the_sum_is_in_float32_in_order_and_rounded_once() -> None:
    """2^24 + 1 + 1 in float32 is 2^24 in this order, and bf16 would have lost the ones at 2^8 already."""
    sent = [Tokens(torch.zeros(1, 1), torch.tensor([[0, 1, 2]]))] + [
        Tokens(torch.zeros(0, 1), torch.zeros(0, 3).long()) for _ in range(2)
    ]
    rows = [torch.tensor([[value]]) for value in (2.0**24, 1.0, 1.0)]
    assert reference.combine(sent, 0, (0, 1, 2), rows).item() == 2.0**24
    assert reference.combine(sent, 0, (2, 1, 0), rows[::-1]).item() == 2.0**24 + 2
    half = [torch.tensor([[value]], dtype=torch.bfloat16) for value in (256.0, 1.0, 1.0)]
    assert reference.combine(sent, 0, (0, 1, 2), half).item() == 258


def test_differences_are_named() -> None:
    a = torch.tensor([[1.0, 2.0], [3.0, float("nan")]])
    b = a.clone()
    b[1, 0] = -3
    assert first_difference("y", a, a.clone()) == ""
    assert first_difference("y", a, b) == "y[1, 0] is 0x40400000, wanted 0xc0400000 (1 of 4 differ)"
    assert "y is present" in first_difference("y", a, None) and "torch.float16" in first_difference("y", a.half(), a)
    quiet = a.clone().view(torch.int32)
    quiet[1, 1] += 1
    other_nan = quiet.view(torch.float32)
    assert first_difference("y", a, other_nan) and not first_difference("y", a, other_nan, any_nan=True)
    assert first_difference("y", torch.tensor([0.0]), torch.tensor([-0.0]))


def test_the_example() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples/ep_moe.py", "--ranks", "3"], capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stderr
    assert "verified" in done.stdout
