# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Torch tensors over memory of ours. The tensor's storage holds the memory's owner, whichever thread drops
it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

__all__ = ["as_tensor"]


class _Exporter(Protocol):
    def __call__(self, byte_offset: int, shape: list[int], code: int, bits: int, /) -> Any: ...


def as_tensor(export: _Exporter, byte_offset: int, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """A contiguous tensor from an exporter of DLPack capsules. Dtypes that DLPack, or some torch, does not
    know (float8, float4, unsigned words) travel as bytes."""
    import torch
    from torch.utils.dlpack import from_dlpack

    codes: dict[torch.dtype, tuple[int, int]] = {
        torch.int8: (0, 8),
        torch.int16: (0, 16),
        torch.int32: (0, 32),
        torch.int64: (0, 64),
        torch.uint8: (1, 8),
        torch.float16: (2, 16),
        torch.float32: (2, 32),
        torch.float64: (2, 64),
        torch.bfloat16: (4, 16),
        torch.complex64: (5, 64),
        torch.bool: (6, 8),
    }
    if dtype in codes:
        known: torch.Tensor = from_dlpack(export(byte_offset, list(shape), *codes[dtype]))
        return known
    raw: torch.Tensor = from_dlpack(export(byte_offset, [math.prod(shape) * dtype.itemsize], 1, 8))
    return raw.view(dtype).view(*shape)
