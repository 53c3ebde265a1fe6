# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The recorded bytes of tests/ibgda/golden (its README.md says whose)."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

Record = dict[str, Any]
FOLDER = Path(__file__).parent / "golden"
FAMILIES = ("mlx5", "bnxt_re", "ionic")
COMPUTED = ("wqe", "wqe_used", "dbrec", "msn", "doorbells")


@cache
def records(family: str) -> list[Record]:
    return [json.loads(line) for line in (FOLDER / f"{family}.jsonl").read_text().splitlines()]


def inputs(family: str) -> list[Record]:
    """Posts without what an encoder computes; completions as they are."""
    return [
        {k: v for k, v in record.items() if record["kind"] != "post" or k not in COMPUTED} for record in records(family)
    ]


def hides(record: Record, entry: str) -> str:
    """The bytes of an entry that count. mlx5's driver leaves the compare field of FETCH_ADD as it was: zeros here."""
    used = entry[: 2 * record.get("wqe_used", len(entry) // 2)]
    if record["provider"] == "mlx5" and record["op"] == "FETCH_ADD":
        used = used[:80] + "0" * 16 + used[96:]
    return used
