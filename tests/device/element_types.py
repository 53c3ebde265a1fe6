# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The element types of rows in numpy, and comparison of bits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
TYPES = {"bf16": 0, "fp16": 1, "fp32": 2}


def stored(values: Floats, type_: str) -> NDArray[Any]:
    """As the type's bits, to nearest even."""
    if type_ == "fp32":
        return values.astype(np.float32)
    if type_ == "fp16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16).view(np.uint16)
    bits = values.astype(np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return np.where(np.isnan(values), bits >> 16 | 0x40, rounded).astype(np.uint16)


def widened(bits: NDArray[Any], type_: str) -> Floats:
    if type_ == "fp32":
        return bits.view(np.float32)
    if type_ == "fp16":
        return bits.view(np.float16).astype(np.float32)
    return (bits.astype(np.uint32) << 16).view(np.float32)


def same(found: NDArray[Any], wanted: NDArray[Any]) -> None:
    """Bit for bit, but that a NaN is a NaN."""
    assert found.dtype == wanted.dtype and found.shape == wanted.shape
    if found.dtype.kind == "f":
        both = np.isnan(found) & np.isnan(wanted)
        found, wanted = (np.where(both, 0, x).astype(x.dtype).view(f"u{x.itemsize}") for x in (found, wanted))
    differs = np.argwhere(found != wanted)
    assert differs.size == 0, (
        f"first at {differs[0]}: {found[tuple(differs[0])]:#x}, not {wanted[tuple(differs[0])]:#x}"
    )
