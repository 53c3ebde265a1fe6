# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""How dispatch may narrow rows on their way: the element type, how many elements share a scale, and what a scale is.

Dispatcher(..., quantize="fp8")                                     # a name of RECIPES
Dispatcher(..., quantize=Quantize("e4m3fn", group=128, scale="ue8m0", column_major=True))
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mori.errors import ConfigError

if TYPE_CHECKING:
    import torch

__all__ = ["ELEMENTS", "RECIPES", "NarrowElement", "Quantize", "recipe_of"]


@dataclasses.dataclass(frozen=True)
class NarrowElement:
    """A type that rows are narrowed to."""

    torch_dtype: str
    limit: float  # largest finite value
    bits: int


ELEMENTS: Mapping[str, NarrowElement] = {
    "e4m3fn": NarrowElement("float8_e4m3fn", 448.0, 8),
    "e4m3fnuz": NarrowElement("float8_e4m3fnuz", 240.0, 8),  # CDNA3
    "e2m1": NarrowElement("float4_e2m1fn_x2", 6.0, 4),
}
SCALES = ("float32", "ue8m0")
#: A group whose largest magnitude is smaller is treated as if it were this: reciprocals stay finite.
SMALLEST_AMAX = 2.0**-100


@dataclasses.dataclass(frozen=True)
class Quantize:
    """One way to narrow a row.

    element: e4m3fn, e4m3fnuz or e2m1. group: elements that share a scale, 0 for the whole row. scale: float32, or
    ue8m0, the next power of two as its biased exponent in a byte. column_major: scales of one column lie side by side.

    A scale is amax / limit, where amax is the largest magnitude of the group; an element becomes
    round(x * (limit / amax)), to nearest even, saturated. docs/ep_guide.md has the details.
    """

    element: str = "e4m3fn"
    group: int = 128
    scale: str = "float32"
    column_major: bool = False

    def __post_init__(self) -> None:
        if self.element not in ELEMENTS:
            raise ConfigError(f"quantize: element={self.element!r} is not one of {', '.join(ELEMENTS)}")
        if self.scale not in SCALES:
            raise ConfigError(f"quantize: scale={self.scale!r} is not one of {', '.join(SCALES)}")
        if not isinstance(self.group, int) or isinstance(self.group, bool) or self.group not in (0, 32, 128):
            raise ConfigError(f"quantize: group={self.group!r} must be 128, 32, or 0 for the whole row")
        if (self.element == "e2m1") != (self.group == 32):
            raise ConfigError(f"quantize: group={self.group} with element={self.element}; 32 belongs to e2m1")
        if self.element == "e2m1" and self.scale != "ue8m0":
            raise ConfigError(f"quantize: scale={self.scale!r} with element=e2m1; its scales are ue8m0")

    def columns(self, hidden: int) -> int:
        """Scales of a row."""
        return -(-hidden // self.group) if self.group else 1

    @property
    def dtype(self) -> torch.dtype:
        """Of narrowed rows."""
        import torch

        dtype: torch.dtype = _dtype(torch, ELEMENTS[self.element].torch_dtype)
        return dtype

    @property
    def scale_dtype(self) -> torch.dtype:
        """float32, or uint8 for ue8m0."""
        import torch

        return torch.float32 if self.scale == "float32" else torch.uint8


def _dtype(torch_: Any, name: str) -> Any:
    found = getattr(torch_, name, None)
    if found is not None:
        return found
    if name == "float4_e2m1fn_x2":
        return torch_.uint8  # an older torch has no name for two fp4 values in a byte
    raise ConfigError(f"quantize: this torch has no {name}")


RECIPES: Mapping[str, Quantize] = {
    "fp8": Quantize(),
    "fp8_token": Quantize(group=0),
    "fp8_ue8m0": Quantize(scale="ue8m0"),
    "fp8_token_ue8m0": Quantize(group=0, scale="ue8m0"),
    "fp8_fnuz": Quantize("e4m3fnuz"),
    "fp8_fnuz_token": Quantize("e4m3fnuz", group=0),
    "fp4": Quantize("e2m1", group=32, scale="ue8m0"),
}


def recipe_of(given: Any) -> Quantize | None:
    """What `quantize=` names. Raises ConfigError."""
    if given is None or isinstance(given, Quantize):
        return given
    if isinstance(given, str) and given in RECIPES:
        return RECIPES[given]
    raise ConfigError(f"quantize={given!r} is not one of {', '.join(RECIPES)}, nor a mori.ep.Quantize")
