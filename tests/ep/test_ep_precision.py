# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Narrow rows are no worse than docs/ep_precision.md says."""

from __future__ import annotations

import pytest
from mori.ep import RECIPES
from mori.ep.reference.sqnr import INPUTS, combined, dispatched

FLOOR_DB = {"fp4": 16.0}  # of fp8: 31


@pytest.mark.parametrize("kind", INPUTS)
def test_dispatched_rows(kind: str) -> None:
    found = dispatched(kind, rows=4)
    assert set(found) == set(RECIPES)
    assert all(FLOOR_DB.get(name, 31.0) < ratio < 36 for name, ratio in found.items()), found


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("scale", [1.0, 2.0**-12, 256.0])
def test_combined_sums(kind: str, scale: float) -> None:
    """With scales the size of rows does not matter; without it does, which the page warns of."""
    found = combined(kind, rows=4, scale=scale)
    assert found["None"] > 55 and 31.5 < found["fp8_block"] < 36, found
    assert (found["fp8"] > 31) == (scale == 1.0), found
