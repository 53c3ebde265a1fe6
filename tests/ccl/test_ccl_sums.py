# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""all_reduce, reduce_scatter and reduce: exact where the numbers are, within n * eps elsewhere, the same bits on all
ranks and by all algorithms, and nothing beside the result is touched."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ccl_ranks import DTYPES, FLOATS, OPS, Guarded, algorithms, each, expected, same, small_integers

pytestmark = pytest.mark.timeout(120)
COUNTS = (0, 1, 3, 17, 1000, 5003)


def exact(comm: Any, dtypes: tuple[torch.dtype, ...], ops: tuple[str, ...], counts: tuple[int, ...]) -> list[str]:
    wrong = []
    for dtype in dtypes:
        for op in ops:
            most = 1 if op == "prod" else 3
            for at, count in enumerate(counts):
                values = [small_integers(r, count, dtype, at, most) for r in range(comm.size)]
                wanted = expected(values, op)
                for algorithm in algorithms(dtype):
                    source, out = Guarded(count, dtype, at % 3), Guarded(count, dtype, at // 2)
                    source.tensor.copy_(values[comm.rank])
                    comm.all_reduce(source.tensor, op=op, out=out.tensor, algorithm=algorithm)
                    unchanged = same(source.tensor, values[comm.rank])
                    comm.all_reduce(source.tensor, op=op, out=source.tensor, algorithm=algorithm)
                    if not (same(out.tensor, wanted) and same(source.tensor, wanted) and unchanged):
                        wrong.append(f"{dtype} {op} {count} {algorithm}")
                    if source.hurt() or out.hurt():
                        wrong.append(f"{dtype} {op} {count} {algorithm}: written outside")
    return wrong


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_small_integers_are_exact(size: int) -> None:
    assert each(exact, size, DTYPES, OPS, COUNTS) == [[]] * size


@pytest.mark.parametrize("size", [7, 8, 16])
def test_many_ranks(size: int) -> None:
    assert each(exact, size, (torch.bfloat16, torch.int64), ("sum", "max"), (1, 5003)) == [[]] * size


@pytest.mark.parametrize("size", [2, 3], ids="{}ranks".format)
@pytest.mark.parametrize("lanes", [32, 64], ids="w{}".format)
def test_lanes(lanes: int, size: int) -> None:
    assert each(exact, size, DTYPES, ("sum", "max"), (1, 17, 1003), lanes=lanes) == [[]] * size


def test_processes() -> None:
    assert each(exact, 3, (torch.float32,), ("sum",), COUNTS, mode="process") == [[]] * 3


def bounded(comm: Any, dtype: torch.dtype) -> list[str]:
    """Random numbers: within n * eps of fp64, equal bits everywhere."""
    wrong, count = [], 3001
    values = [torch.randn(count, generator=torch.Generator().manual_seed(r)).to(dtype) for r in range(comm.size)]
    for op in ("sum", "avg", "prod"):
        first = None
        for algorithm in algorithms(dtype):
            got = comm.all_reduce(values[comm.rank], op=op, algorithm=algorithm)
            first = got if first is None else first
            if not same(got, first):
                wrong.append(f"{op} {algorithm}: other bits than by auto")
        assert first is not None
        rows = torch.stack([value.double() for value in values])
        total = rows.prod(0) if op == "prod" else rows.sum(0)
        largest = rows.abs().prod(0) if op == "prod" else rows.abs().sum(0)
        scale = 1 / comm.size if op == "avg" else 1.0
        bound = (comm.size + 1) * torch.finfo(dtype).eps * largest * scale + torch.finfo(dtype).smallest_normal
        if ((first.double() - total * scale).abs() > bound).any():
            wrong.append(f"{op}: too far from fp64")
        everybody = comm.all_gather(first).view(comm.size, -1)
        if not all(same(everybody[r].contiguous(), first) for r in range(comm.size)):
            wrong.append(f"{op}: ranks have different bits")
    return wrong


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: str(d).removeprefix("torch."))
def test_random_numbers_are_bounded_and_equal_everywhere(dtype: torch.dtype) -> None:
    assert each(bounded, 4, dtype) == [[]] * 4


def special(comm: Any) -> list[str]:
    wrong = []
    nan, inf = float("nan"), float("inf")
    x = torch.tensor([[nan, 1.0, inf, -0.0, 3e38], [1.0, nan, -inf, -0.0, 3e38]][comm.rank])
    for algorithm in algorithms(x.dtype):
        total = comm.all_reduce(x, algorithm=algorithm)
        least = comm.all_reduce(x, op="min", algorithm=algorithm)
        most = comm.all_reduce(x, op="max", algorithm=algorithm)
        if not (total[:3].isnan().all() and total[3] == 0 and total[4] == inf):
            wrong.append(f"{algorithm}: sum {total}")
        if not (least[:2].isnan().all() and most[:2].isnan().all() and least[2] == -inf and most[2] == inf):
            wrong.append(f"{algorithm}: {least} {most}")
    big = torch.full((5,), 400.0).to(torch.float8_e4m3fn)
    if comm.all_reduce(big).float().tolist() != [448.0] * 5:
        wrong.append("fp8 does not saturate")
    wraps = torch.full((5,), 2**31 - 1, dtype=torch.int32)
    if comm.all_reduce(wraps).tolist() != [-2] * 5:
        wrong.append("int32 does not wrap")
    return wrong


@pytest.mark.parametrize("lanes", [1, 32])
def test_special_values(lanes: int) -> None:
    assert each(special, 2, lanes=lanes) == [[], []]


def parts(comm: Any, dtype: torch.dtype) -> list[str]:
    """reduce_scatter and reduce, in place too, by every root."""
    wrong = []
    for seed, rows in enumerate((0, 1, 7, 1021)):
        values = [small_integers(r, comm.size * rows * 3, dtype, seed) for r in range(comm.size)]
        x = values[comm.rank].view(comm.size * rows, 3).clone()
        wanted = expected(values, "sum").view(comm.size, rows, 3)
        if not same(comm.reduce_scatter(x), wanted[comm.rank]):
            wrong.append(f"reduce_scatter {rows}")
        mine = x[comm.rank * rows : (comm.rank + 1) * rows]
        if not same(comm.reduce_scatter(x, out=mine), wanted[comm.rank]):
            wrong.append(f"reduce_scatter in place {rows}")
        for root in range(comm.size):
            x = values[comm.rank].clone()
            got = comm.reduce(x, root, op="max", out=x)
            if comm.rank == root:
                if got is None or not same(x, expected(values, "max")):
                    wrong.append(f"reduce to {root} {rows}")
            elif got is not None or not same(x, values[comm.rank]):
                wrong.append(f"reduce to {root} changed member {comm.rank}")
    return wrong


@pytest.mark.parametrize("lanes", [1, 32, 64], ids="w{}".format)
@pytest.mark.parametrize("size", [1, 3, 4], ids="{}ranks".format)
def test_parts_and_roots(size: int, lanes: int) -> None:
    assert each(parts, size, torch.bfloat16, lanes=lanes) == [[]] * size


def symmetric(comm: Any) -> bool:
    x = comm.ctx.empty((777,), torch.float32)
    x.fill_(comm.rank + 1)
    comm.all_reduce(x, out=x)
    return bool((x == comm.size * (comm.size + 1) / 2).all())


def test_symmetric_tensors() -> None:
    assert each(symmetric, 3) == [True] * 3
