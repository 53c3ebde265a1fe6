# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Combine buffers too large to have two of: senders wait for the owner's announcement of the very call. Many combines
one behind the other, whole and in halves, all ranks and some: every sum compared bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ep_cases import Case, expert_map, returned_rows, tokens_of
from ep_crew import Crew
from mori.ep import Dispatcher, reference
from mori.ep.reference import first_difference

pytestmark = pytest.mark.timeout(60)

WORLD, COMBINES = 3, 24
CASE = Case("single-buffer", hidden=1 << 16, topk=3, tokens=(5, 2, 4))
MAX_TOKENS = 400  # x 3 rows of 128 KiB: two buffers would have more than 256 MiB


@pytest.mark.parametrize("active", [(0, 1, 2), (0, 2)], ids=["all", "masked"])
@pytest.mark.parametrize("halves", [False, True], ids=["whole", "halves"])
def test_many_combines(crew3: Crew, halves: bool, active: tuple[int, ...]) -> None:
    placed = expert_map(CASE, WORLD)
    sent = [tokens_of(CASE, r) for r in range(WORLD)]
    matrix = reference.counts(sent, placed, active)
    returned = [
        [returned_rows(CASE, r, int(matrix[:, r].sum()), which) for r in range(WORLD)] for which in range(COMBINES)
    ]

    def work(ctx: Any) -> list[str]:
        rank, mask = ctx.rank, torch.tensor([sum(1 << r for r in active)])
        mine, sums = sent[rank], []
        arguments: dict[str, Any] = {"topk": CASE.topk, "max_tokens": MAX_TOKENS, "capacity": 16, "live_results": 1}
        with Dispatcher(ctx, CASE.hidden, CASE.experts, **arguments, debug=False) as moe:
            assert moe._layout.combine_buffers == 1
            if rank in active:
                recv = moe.dispatch(mine.x, mine.topk_ids, mine.topk_weights, active=mask)
                for rows in (r[rank] for r in returned):  # nothing but the announcement holds a quick rank back
                    if halves:
                        sums.append(moe.combine_recv(moe.combine_send(rows, recv.routing, active=mask)))
                    else:
                        sums.append(moe.combine(rows, recv.routing, active=mask))
            moe.readmit()
        wanted = [reference.combine(sent, rank, placed, rows, active=active) for rows in returned if sums]
        texts = [first_difference(f"sum {i}", *pair) for i, pair in enumerate(zip(sums, wanted, strict=True))]
        return [text for text in texts if text]

    assert crew3.each(work) == [[]] * WORLD
