# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Comparisons, signal operations and dtypes, as kernels number them."""

from __future__ import annotations

import functools
import struct
from typing import TYPE_CHECKING

from mori import _core
from mori.errors import ConfigError

if TYPE_CHECKING:
    import torch

__all__ = [
    "ANY_PE",
    "REDUCTIONS",
    "Cmp",
    "Op",
    "SignalOp",
    "Type",
    "bits",
    "comparison",
    "names",
    "number",
    "signal_operation",
]

Op, Type, Cmp, SignalOp = _core.ShmemHostOp, _core.ShmemType, _core.ShmemCmp, _core.ShmemSignalOp
ANY_PE = _core.SHMEM_ANY_PE

_SIGNS = {"==": "eq", "!=": "ne", ">": "gt", ">=": "ge", "<": "lt", "<=": "le"}
_INTEGERS = {"int32": Type.i32, "int64": Type.i64, "uint32": Type.u32, "uint64": Type.u64}
_FLOATS = {"float32": Type.fp32, "float64": Type.fp64}
_SMALL = {"uint8": Type.u8, "int8": Type.i8, "int16": Type.i16, "uint16": Type.u16}
_HALF = {"float16": Type.fp16, "bfloat16": Type.bf16}
#: kernels of reductions by dtype: that of integers knows both signs
REDUCTIONS = {int(kind): kind.name.lstrip("iu") for kind in Type.__members__.values()}
#: dtypes by what is done with them
_FAMILIES = {
    "signal": {name: _INTEGERS[name] for name in ("int64", "uint64")},
    "wait": _INTEGERS,
    "amo": _INTEGERS | _FLOATS,
    "bitwise amo": _INTEGERS,
    "reduce": _INTEGERS | _FLOATS | _SMALL | _HALF,
    "bitwise reduce": _INTEGERS | _SMALL,
}


@functools.lru_cache
def _table(family: str) -> dict[torch.dtype, int]:
    import torch

    return {getattr(torch, name): int(kind) for name, kind in _FAMILIES[family].items() if hasattr(torch, name)}


def names(family: str) -> str:
    return ", ".join(_FAMILIES[family])


def number(dtype: torch.dtype, family: str) -> int | None:
    """The kernels' number of a dtype; None if the family has it not."""
    return _table(family).get(dtype)


def bits(dtype: torch.dtype, name: str, value: float) -> int:
    """The value as the low bytes of a word. ConfigError if the dtype cannot hold it."""
    if dtype.is_floating_point:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ConfigError(f"{name}={value!r} is not a number")
        form = "<f" if dtype.itemsize == 4 else "<d"
        try:
            return int.from_bytes(struct.pack(form, value), "little")
        except OverflowError:
            raise ConfigError(f"{name}={value!r} does not fit {dtype}") from None
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ConfigError(f"{name}={value!r} is not an integer; the tensor is {dtype}")
    whole, width = int(value.__index__()), 8 * dtype.itemsize
    low, high = (-(1 << (width - 1)), (1 << (width - 1)) - 1) if dtype.is_signed else (0, (1 << width) - 1)
    if not low <= whole <= high:
        raise ConfigError(f"{name}={whole} does not fit {dtype}: {low}..{high}")
    return whole & ((1 << width) - 1)


def value_of(dtype: torch.dtype, word: int) -> int | float:
    """What bits() made a word of."""
    raw = word.to_bytes(8, "little")[: dtype.itemsize]
    if dtype.is_floating_point:
        number: float = struct.unpack("<f" if dtype.itemsize == 4 else "<d", raw)[0]
        return number
    return int.from_bytes(raw, "little", signed=dtype.is_signed)


def comparison(cmp: object) -> int:
    """The number of a Cmp, of its name ("ge") or of its sign (">=")."""
    if isinstance(cmp, Cmp):
        return int(cmp)
    found = Cmp.__members__.get(_SIGNS.get(cmp, cmp)) if isinstance(cmp, str) else None
    if found is None:
        raise ConfigError(f"cmp={cmp!r}: allowed are {', '.join(Cmp.__members__)}, their signs, and mori.shmem.Cmp")
    return int(found)


def signal_operation(op: object) -> int:
    """The number of a SignalOp or of its name."""
    if isinstance(op, SignalOp):
        return int(op)
    found = SignalOp.__members__.get(op) if isinstance(op, str) else None
    if found is None:
        raise ConfigError(f"op={op!r}: allowed are {', '.join(SignalOp.__members__)} and mori.shmem.SignalOp")
    return int(found)
