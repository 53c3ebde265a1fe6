# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The Python of docs/shmem_host.md runs, and its table names what there is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import mori.shmem
import pytest
from mori.testing import run_ranks

import mori

GUIDE = (Path(__file__).resolve().parents[2] / "docs/shmem_host.md").read_text()


def run_guide(rank: int, size: int, uid: bytes) -> tuple[float, int]:
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL):
        exec(block, names)
    with mori.init(uid=uid, rank=rank, world_size=size, device="cpu", timeout=20, heap_bytes=1 << 20) as ctx:
        total = names["work"](ctx)
        with mori.shmem.Shmem(ctx) as shm:
            members = names["teams"](shm)
        ctx.barrier()
        return total, members


@pytest.mark.timeout(60)
@pytest.mark.parametrize("size", [1, 3], ids="{}ranks".format)
def test_the_blocks_run(size: int) -> None:
    outcome = run_ranks(run_guide, size, timeout=40)
    assert [total for total, _ in outcome] == [float(sum(range(size)))] * size
    assert [members for _, members in outcome] == [min(2, size - rank // 2 * 2) for rank in range(size)]


def test_every_function_is_named() -> None:
    short = re.compile(r"atomic_fetch_(inc|and|or|xor)$")  # `_inc`, `_and` ... behind atomic_fetch_add
    names = [name for name in mori.shmem._FUNCTIONS if not short.match(name)]
    assert [name for name in names if not re.search(rf"\b{name}\b", GUIDE)] == []
