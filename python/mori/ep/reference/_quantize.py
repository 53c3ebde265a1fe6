# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Narrowing rows, in plain torch: the exact bits that dispatch and combine must give.

A group's amax is the largest magnitude in it (NaN does not count), at least 2^-100. Then, in float32,

    scale = amax / limit      inverse = limit / amax                            with float32 scales
    byte = exponent of amax / limit, rounded up      inverse = 2^(127 - byte)   with ue8m0

and an element is x * inverse, rounded to float32, then to the narrow type: to nearest even, saturated, NaN kept.
"""

from __future__ import annotations

import torch

from mori.ep._recipe import ELEMENTS, SMALLEST_AMAX, Quantize
from mori.errors import ConfigError

__all__ = ["dequantize", "quantize", "wire_values"]

_E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])


def quantize(x: torch.Tensor, recipe: Quantize) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows in the recipe's type, scales [rows, columns]) of x [rows, hidden]: float32, float16 or bfloat16."""
    rows, hidden = x.shape
    columns = recipe.columns(hidden)
    group = recipe.group or hidden
    wide = torch.zeros(rows, columns * group)
    wide[:, :hidden] = x.float()
    groups = wide.view(rows, columns, group)
    limit = torch.tensor(ELEMENTS[recipe.element].limit)
    amax = groups.abs().nan_to_num(nan=0.0, posinf=float("inf")).amax(dim=2)
    amax = amax.maximum(torch.tensor(SMALLEST_AMAX))
    if recipe.scale == "float32":
        scale, inverse = amax / limit, limit / amax
    else:
        byte = _exponent_up(amax / limit)
        scale, inverse = byte, (254 - byte.int().clamp(max=254) << 23).view(torch.float32)  # 0 where amax is infinite
    scaled = (groups * inverse.unsqueeze(2)).view(rows, columns * group)[:, :hidden]
    return _narrow(scaled.contiguous(), recipe.element), scale


def _exponent_up(value: torch.Tensor) -> torch.Tensor:
    """uint8: the biased exponent of the smallest power of two that is not below a positive value; 255, NaN, for
    infinity."""
    bits = value.view(torch.int32)
    up = (bits >> 23) + ((bits & 0x7FFFFF) != 0).int()
    return up.to(torch.uint8)


def _narrow(value: torch.Tensor, element: str) -> torch.Tensor:
    kind = ELEMENTS[element]
    held = value.clamp(-kind.limit, kind.limit)  # NaN passes
    if element == "e2m1":
        return _pack_e2m1(held)
    return held.to(getattr(torch, kind.torch_dtype))


def _pack_e2m1(value: torch.Tensor) -> torch.Tensor:
    """Two values a byte, the first in the low half; NaN, which e2m1 has not, becomes 6."""
    magnitude = value.abs().nan_to_num(nan=6.0)
    middles = (_E2M1[1:] + _E2M1[:-1]) / 2
    code = (magnitude.unsqueeze(-1) > middles).sum(-1)
    tie = (magnitude.unsqueeze(-1) == middles).any(-1)
    code = torch.where(tie & (code % 2 == 1), code + 1, code)  # counted strictly: an odd lower code goes up to even
    code = code | (torch.signbit(value) & ~value.isnan()).long() << 3
    pairs = code.view(len(value), -1, 2)
    packed = (pairs[..., 0] | pairs[..., 1] << 4).to(torch.uint8)
    fp4 = getattr(torch, "float4_e2m1fn_x2", torch.uint8)
    return packed.view(fp4)


def dequantize(x: torch.Tensor, scales: torch.Tensor, recipe: Quantize) -> torch.Tensor:
    """float32 [rows, hidden]: each element times its scale."""
    if recipe.element == "e2m1":
        raw = x.view(torch.uint8).long()
        codes = torch.stack([raw & 15, raw >> 4], dim=-1).flatten(-2)
        values = _E2M1.to(raw.device)[codes & 7] * torch.where(codes & 8 > 0, -1.0, 1.0)
    else:
        values = x.float()
    factor = scales.float() if recipe.scale == "float32" else torch.exp2(scales.float() - 127)
    group = recipe.group or values.shape[-1]
    return values * factor.repeat_interleave(group, dim=-1)[..., : values.shape[-1]]


def wire_values(rows: torch.Tensor, wire: str | None) -> torch.Tensor:
    """What an owner adds up when rows come back as `wire`: None (as they are), "fp8" (cast without a scale), or
    "fp8_block" (a float32 scale for 128 elements)."""
    if wire is None:
        return rows
    if wire == "fp8":
        return _narrow(rows.float(), "e4m3fn").float()
    if wire == "fp8_block":
        recipe = Quantize("e4m3fn", group=128)
        return dequantize(*quantize(rows, recipe), recipe)
    raise ConfigError(f"wire={wire!r}: allowed are None, fp8, fp8_block")
