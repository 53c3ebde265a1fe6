# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""blocks::reduce gives the bits of a plain loop in fp32, by every group, for every type and alignment."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compile_quickly import quick
from conftest import Lab
from element_types import TYPES, Floats, same, stored, widened

import mori

pytestmark = pytest.mark.timeout(60)
SOURCE = Path(__file__).parent / "kernels/blocks_reduce.cpp"
GROUPS = {"thread": 0, "warp": 1, "block": 2}
SHAPES = [(0, 5), (1, 1), (3, 0), (2, 7), (1, 8), (5, 64), (7, 1029), (9, 4100)]  # rows, elements


class ReduceArgs(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("to", "rows", "weights", "list", "stride", "n")),
        *((name, ctypes.c_uint32) for name in ("count", "group", "in", "out")),
    )


@pytest.fixture
def kernel(each_lab: Lab, kernel_cache: Path) -> Any:
    return mori.compile_kernel(SOURCE, device=each_lab.device, flags=quick(each_lab.device)).kernel("reduce_rows")


def rows_of(count: int, stride: int, type_: str) -> Any:
    """Magnitudes apart, so that another order of summation gives other bits; some specials."""
    random = np.random.default_rng(count * 10007 + stride)
    values = random.standard_normal((count, stride)) * 10.0 ** random.integers(-3, 4, (count, stride))
    special = random.random((count, stride))
    values[special < 0.01] = -0.0
    values[special > 0.995] = np.inf
    values[special > 0.997] = np.nan
    values[special > 0.999] = 1e-7
    return stored(values.astype(np.float32), type_)


def summed(rows: Floats, weights: Floats) -> Floats:
    total = np.zeros(rows.shape[1], np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        for row, weight in zip(rows, weights, strict=True):
            total = total + row * weight
    return total


@pytest.mark.parametrize("out", TYPES)
@pytest.mark.parametrize("in_", TYPES)
@pytest.mark.parametrize("way", [*GROUPS, "list"])
def test_the_order_is_the_rows(each_lab: Lab, kernel: Any, way: str, in_: str, out: str) -> None:
    out_bytes = 4 if out == "fp32" else 2
    for count, n in SHAPES:
        for weighted, odd in [(False, 0), (True, 0), (True, 1)]:
            stride = -(-n // 8) * 8 + 8 + odd
            held = rows_of(count, stride, in_)
            weights = np.random.default_rng(n).standard_normal(count).astype(np.float32)
            if not weighted:
                weights[:] = 1
            at = each_lab.array(held)
            to = each_lab.array(np.full(n * out_bytes + 64, 0xA5, np.uint8))
            listed = np.zeros(count, np.dtype([("address", "<u8"), ("weight", "<f4"), ("pad", "<u4")]))
            listed["address"] = at + np.arange(count, dtype=np.uint64) * stride * held.itemsize
            listed["weight"] = weights
            fields = {
                "to": to + odd * out_bytes,
                "rows": at,
                "weights": each_lab.array(weights) if weighted else 0,
                "list": each_lab.array(listed) if way == "list" else 0,
                "stride": stride,
                "n": n,
                "count": count,
                "group": GROUPS.get(way, 1),
                "in": TYPES[in_],
                "out": TYPES[out],
            }
            kernel.launch(ReduceArgs(**fields), warps=2, shared_bytes=4)
            each_lab.device.synchronize(0)
            found = each_lab.read(to, np.uint8, n * out_bytes + 64)
            wanted = stored(summed(widened(held, in_)[:, :n], weights), out)
            row = found[odd * out_bytes :][: n * out_bytes].view(wanted.dtype)
            same(widened(row, out), widened(wanted, out))
            row[:] = 0xA5A5A5A5 % (1 << 8 * out_bytes) if out != "fp32" else np.uint32(0xA5A5A5A5).view(np.float32)
            assert (found == 0xA5).all()
