# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What goes into a collective and what must come out: small integers, exact in every dtype, by numpy alone."""

from __future__ import annotations

from typing import Any

import numpy as np

from .ccl_settings import CclCase
from .verify import Mismatch

__all__ = ["check", "source", "wanted"]


def _values(rank: int, count: int, seed: int) -> Any:
    return ((np.arange(count, dtype=np.int64) * (rank + 2) + 3 * rank + seed) % 5).astype(np.int32)


def source(case: CclCase, ranks: int, rank: int, elements: int, seed: int) -> Any:
    """int32 values of what `rank` puts in; `elements` are those of case.bytes."""
    return _values(rank, elements // ranks if case.op == "all_gather" else elements, seed)


def wanted(case: CclCase, ranks: int, rank: int, elements: int, seed: int) -> Any:
    """int32 values of what `rank` must have, or None where nothing comes out. Rank 0 is the root."""
    part = elements // ranks
    mine = slice(rank * part, (rank + 1) * part)
    if case.op == "all_gather":
        return np.concatenate([_values(r, part, seed) for r in range(ranks)])
    if case.op == "all_to_all":
        return np.concatenate([_values(r, elements, seed)[mine] for r in range(ranks)])
    if case.op == "broadcast":
        return _values(0, elements, seed)
    total = np.zeros(elements, dtype=np.int32)
    for r in range(ranks):
        total += _values(r, elements, seed)
    if case.op == "reduce_scatter":
        return total[mine]
    return total if case.op == "all_reduce" or rank == 0 else None


def check(impl: str, case: CclCase, rank: int, got: Any, want: Any) -> None:
    """Raises Mismatch with the number of wrong elements and the first one."""
    if want is None:
        return
    wrong = np.flatnonzero(np.asarray(got).astype(np.int64) != want)
    if len(wrong):
        at = int(wrong[0])
        raise Mismatch(
            f"{impl} {case.op} of {case.bytes} bytes ({case.algorithm}) on rank {rank}: {len(wrong)} of {len(want)} "
            f"elements are wrong; element {at} is {got[at]}, expected {want[at]}"
        )
