# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The Python of docs/ep_guide.md runs, block by block, on two ranks, and what it says of refusals and names is so."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ep_crew import Crew
from mori.ep import RECIPES, Dispatcher

import mori

pytestmark = pytest.mark.timeout(60)

GUIDE = (Path(__file__).resolve().parents[2] / "docs/ep_guide.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```$", GUIDE, re.M | re.S)


def names(ctx: Any) -> dict[str, Any]:
    """What a reader has at hand."""
    generator = torch.Generator().manual_seed(ctx.rank)
    x = torch.randn(20, 256, generator=generator).to(torch.bfloat16)
    ids = torch.rand(20, 4, generator=generator).argsort(1)[:, :2].contiguous()
    return {
        "mori": mori,
        "ctx": ctx,
        "x": x,
        "topk_ids": ids,
        "topk_weights": torch.rand(20, 2, generator=generator),
        "grouped_gemm": lambda rows, offsets: rows * 2,
        "shared_expert": lambda rows: rows + 1,
    }


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block_runs(crews: Callable[[int], Crew], number: int) -> None:
    def work(ctx: Any) -> None:
        scope = names(ctx)
        if not BLOCKS[number].startswith("moe = "):
            scope["moe"] = Dispatcher(ctx, 256, 4, topk=2, max_tokens=32)
        exec(BLOCKS[number], scope)
        assert scope["y"].shape == scope["x"].shape
        scope["moe"].close()

    crews(2).each(work)


def test_the_page_has_its_blocks_and_names_all_recipes() -> None:
    assert len(BLOCKS) >= 4
    for name in RECIPES:
        assert f"`{name}`" in GUIDE
