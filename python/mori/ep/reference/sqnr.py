# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What narrowing costs: the ratio of signal to error, in dB, of dispatched rows and of combined sums.

python -m mori.ep.reference.sqnr        # the tables of docs/ep_precision.md

The bits of the kernels are those of this reference, so no kernel needs to run.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from mori.ep._recipe import RECIPES
from mori.ep.reference._quantize import dequantize, quantize, wire_values

__all__ = ["INPUTS", "combined", "dispatched", "sqnr"]

ROWS, HIDDEN, TERMS = 64, 7168, 8


def _normal(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator)


def _heavy(generator: torch.Generator, *shape: int) -> torch.Tensor:
    """Student's t with three degrees of freedom: outliers as in activations."""
    chi = torch.randn((3, *shape), generator=generator).square().sum(0)
    return torch.randn(shape, generator=generator) / (chi / 3).sqrt()


#: Kinds of rows.
INPUTS = {"normal": _normal, "heavy": _heavy}


def sqnr(wanted: torch.Tensor, got: torch.Tensor) -> float:
    """10 log10 of the signal's power over the error's."""
    error = (got.double() - wanted.double()).square().sum()
    return float(10 * torch.log10(wanted.double().square().sum() / error))


def dispatched(kind: str, *, rows: int = ROWS, seed: int = 0) -> Mapping[str, float]:
    """For each recipe, of rows of bfloat16."""
    x = INPUTS[kind](torch.Generator().manual_seed(seed), rows, HIDDEN).bfloat16()
    return {name: sqnr(x, dequantize(*quantize(x, recipe), recipe)) for name, recipe in RECIPES.items()}


def combined(kind: str, *, rows: int = ROWS, seed: int = 0, scale: float = 1.0) -> Mapping[str, float]:
    """For each wire, of sums of eight weighted rows of bfloat16 that all come from other ranks, rounded to bfloat16.
    `scale` multiplies the rows."""
    generator = torch.Generator().manual_seed(seed)
    terms = (INPUTS[kind](generator, TERMS, rows, HIDDEN) * scale).bfloat16()
    weights = torch.randn((TERMS, rows, 1), generator=generator).softmax(0)
    exact = (terms.double() * weights.double()).sum(0)
    found = {}
    for wire in (None, "fp8_block", "fp8"):
        total = torch.zeros(rows, HIDDEN)
        for term, weight in zip(terms, weights, strict=True):
            total += weight * wire_values(term, wire).float()
        found[str(wire)] = sqnr(exact, total.bfloat16())
    return found


def main() -> None:
    print("| dispatch | " + " | ".join(INPUTS) + " |")
    columns = [dispatched(kind) for kind in INPUTS]
    for name in columns[0]:
        print(f"| `{name}` | " + " | ".join(f"{column[name]:.1f}" for column in columns) + " |")
    scales = (1.0, 2.0**-8, 2.0**-12, 256.0)
    print("\n| combine | " + " | ".join(f"{kind}, rows x {scale:g}" for kind in INPUTS for scale in scales) + " |")
    columns = [combined(kind, scale=scale) for kind in INPUTS for scale in scales]
    for name in columns[0]:
        print(f"| `{name}` | " + " | ".join(f"{column[name]:.1f}" for column in columns) + " |")


if __name__ == "__main__":
    main()
