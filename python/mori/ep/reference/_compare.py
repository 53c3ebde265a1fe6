# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Comparing tensors by their bits, and naming what differs."""

from __future__ import annotations

import torch

__all__ = ["as_bits", "first_difference"]


def as_bits(tensor: torch.Tensor) -> torch.Tensor:
    """The same bytes as integers, which can be indexed and compared whatever the type."""
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.view(whole[tensor.element_size()])


def first_difference(name: str, got: torch.Tensor | None, wanted: torch.Tensor | None, *, any_nan: bool = False) -> str:
    """Empty if both have the same type, shape and bits, else what differs first. With `any_nan` a NaN equals any
    NaN, for results of arithmetic: which of its many bit patterns an addition gives is the processor's choice."""
    if got is None or wanted is None:
        return "" if got is wanted else f"{name} is {'absent' if got is None else 'present'}"
    got = got.cpu()
    if (got.dtype, got.shape) != (wanted.dtype, wanted.shape):
        return f"{name} is {got.dtype} {tuple(got.shape)}, wanted {wanted.dtype} {tuple(wanted.shape)}"
    differs = as_bits(got) != as_bits(wanted)
    if any_nan:
        differs &= ~(got.isnan() & wanted.isnan())
    if not differs.any():
        return ""
    at = tuple(differs.nonzero()[0].tolist())
    width = 2 * got.element_size()
    bits = [int(as_bits(t)[at]) % (1 << 4 * width) for t in (got, wanted)]
    return (
        f"{name}[{', '.join(map(str, at))}] is 0x{bits[0]:0{width}x}, wanted 0x{bits[1]:0{width}x} "
        f"({int(differs.sum())} of {differs.numel()} differ)"
    )
