# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Operations, reductions, algorithms and element types, as the kernels of src/ops/ccl number them."""

from __future__ import annotations

import enum
import functools
from typing import TYPE_CHECKING, NamedTuple

from mori.errors import ConfigError

if TYPE_CHECKING:
    import torch

__all__ = [
    "WIRES",
    "Algorithm",
    "Element",
    "Op",
    "Reduction",
    "algorithm",
    "check_wire",
    "element_types",
    "norm_types",
    "quantised_types",
    "reduction",
]


class Op(enum.IntEnum):
    """mori::CclOp."""

    barrier = 0
    all_gather = 1
    all_to_all = 2
    broadcast = 3
    scatter = 4
    gather = 5
    all_reduce = 6
    reduce_scatter = 7
    reduce = 8


class Reduction(enum.IntEnum):
    """mori::CclReduction."""

    sum = 0
    avg = 1
    min = 2
    max = 3
    prod = 4


class Algorithm(enum.IntEnum):
    """mori::CclAlgorithm."""

    one_shot = 0
    two_shot = 1
    ll = 2


#: dtype, unit of its kernel, kernel
_ELEMENTS = (
    ("bfloat16", "float", "bf16"),
    ("float16", "float", "fp16"),
    ("float32", "float", "fp32"),
    ("float64", "float", "fp64"),
    ("int32", "integer", "i32"),
    ("int64", "integer", "i64"),
    ("float8_e4m3fn", "fp8", "e4m3fn"),
    ("float8_e5m2", "fp8", "e5m2"),
)


#: narrow formats in which all_reduce can send, and the dtypes that it takes then
WIRES = ("fp8", "int8", "int6", "int4")
_QUANTISED = {"bfloat16": "bf16", "float16": "fp16"}


class Element(NamedTuple):
    """A dtype that can be summed."""

    number: int  # from 1
    unit: str  # of the kernel
    kernel: str


@functools.cache
def element_types() -> dict[torch.dtype, Element]:
    import torch

    return {
        getattr(torch, name): Element(i + 1, f"ccl_reduce_{unit}", f"ccl_reduce_{kernel}")
        for i, (name, unit, kernel) in enumerate(_ELEMENTS)
        if hasattr(torch, name)
    }


def reduction(op: str) -> Reduction:
    found = Reduction.__members__.get(op) if isinstance(op, str) else None
    if found is None:
        raise ConfigError(f"op={op!r}: allowed are {', '.join(Reduction.__members__)}")
    return found


def algorithm(name: str) -> Algorithm | None:
    """None for "auto"."""
    found = Algorithm.__members__.get(name) if isinstance(name, str) else None
    if found is None and name != "auto":
        raise ConfigError(f"algorithm={name!r}: allowed are auto, {', '.join(Algorithm.__members__)}")
    return found


@functools.cache
def quantised_types() -> dict[torch.dtype, str]:
    """What kernels ccl_WIRE_* call a dtype."""
    import torch

    return {getattr(torch, name): kernel for name, kernel in _QUANTISED.items()}


@functools.cache
def norm_types() -> dict[torch.dtype, str]:
    """What kernels ccl_norm_* call a dtype."""
    import torch

    return quantised_types() | {torch.float32: "fp32"}


def check_wire(wire: str, dtype: torch.dtype, op: str, algorithm: str) -> None:
    if wire not in WIRES:
        raise ConfigError(f"wire={wire!r}: allowed are None, {', '.join(WIRES)}")
    if dtype not in quantised_types():
        raise ConfigError(f"wire={wire!r} is for {' and '.join(_QUANTISED)}; x is {dtype}")
    if op not in ("sum", "avg"):
        raise ConfigError(f"wire={wire!r} is for op='sum' and 'avg', not {op!r}")
    if algorithm not in ("auto", "two_shot"):
        raise ConfigError(f"wire={wire!r} goes in two shots; algorithm={algorithm!r}")
