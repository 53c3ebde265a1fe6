# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Narrow formats from their definitions, in numpy: tables of values, and the nearest entry."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Codes = NDArray[np.uint8]
SMALLEST_AMAX = np.float32(2.0**-100)


class Format(NamedTuple):
    """Codes are a sign above a magnitude, or two's complement (`bias` None)."""

    bits: int
    limit: float
    mantissa: int = 0
    bias: int | None = None
    fnuz: bool = False
    torch: str = ""

    def values(self) -> NDArray[np.float64]:
        """What each code means."""
        codes = np.arange(1 << self.bits)
        half = 1 << (self.bits - 1)
        if self.bias is None:
            return np.where(codes < half, codes, codes - 2 * half).astype(np.float64)
        magnitude = codes % half
        exponent, fraction = magnitude >> self.mantissa, (magnitude & ((1 << self.mantissa) - 1)) / 2**self.mantissa
        normal = np.ldexp(1 + fraction, exponent - self.bias)
        value = np.where(exponent == 0, np.ldexp(fraction, 1 - self.bias), normal)
        value = np.where(codes < half, value, -value)
        if self.fnuz:
            value[half] = np.nan
        elif self.bits == 8:
            beyond = np.where(magnitude == 0x7C, np.inf, np.nan) if self.mantissa == 2 else np.nan
            value = np.where(magnitude > self.most, np.copysign(beyond, value), value)
        return value

    @property
    def most(self) -> int:
        """The code of the limit."""
        if self.bias is None:
            return int(self.limit)
        return {(3, False): 0x7E, (3, True): 0x7F, (2, False): 0x7B, (1, False): 7}[(self.mantissa, self.fnuz)]

    def encode(self, values: Floats) -> Codes:
        """The nearest code, the even one of two, saturated; NaN is the format's, positive, or 6, or 0."""
        table = self.values()[: self.most + 1]
        middles = (table[1:] + table[:-1]) / 2
        magnitude = np.abs(values.astype(np.float64))
        low, high = np.searchsorted(middles, magnitude, "left"), np.searchsorted(middles, magnitude, "right")
        code = np.where(low % 2 == 0, low, high)  # equal unless it is a tie
        negative = np.signbit(values)
        if self.bias is None:
            signed = np.where(negative, -code, code) & ((1 << self.bits) - 1)
            return np.where(np.isnan(values), 0, signed).astype(np.uint8)
        signed = code | (negative & ~(self.fnuz & (code == 0))) << (self.bits - 1)
        return np.where(np.isnan(values), 0x80 if self.fnuz else (1 << (self.bits - 1)) - 1, signed).astype(np.uint8)


FORMATS = {
    "E4m3fn": Format(8, 448, 3, 7, torch="float8_e4m3fn"),
    "E4m3fnuz": Format(8, 240, 3, 8, fnuz=True, torch="float8_e4m3fnuz"),
    "E5m2": Format(8, 57344, 2, 15, torch="float8_e5m2"),
    "E2m1": Format(4, 6, 1, 1),
    "Int8": Format(8, 127),
    "Int6": Format(6, 31),
    "Int4": Format(4, 7),
}


def scales_of(rows: Floats, limit: float, block: int, e8m0: bool) -> tuple[NDArray[Any], Floats]:
    """(scales as stored, what elements are multiplied by), both [rows, blocks]."""
    count = -(-rows.shape[1] // block)
    wide = np.zeros((len(rows), count * block), np.float32)
    wide[:, : rows.shape[1]] = np.abs(rows)
    amax = np.nan_to_num(wide, nan=0.0, posinf=np.inf).reshape(len(rows), count, block).max(2, initial=0)
    amax = np.maximum(amax, SMALLEST_AMAX)
    with np.errstate(divide="ignore"):
        scale, inverse = amax / np.float32(limit), np.float32(limit) / amax
    if not e8m0:
        return scale, inverse
    mantissa, exponent = np.frexp(scale.astype(np.float64))
    byte = np.where(np.isinf(scale), 255, exponent - (mantissa == 0.5) + 127)
    inverse = np.where(byte == 255, 0, np.ldexp(1.0, 127 - byte)).astype(np.float32)
    return byte.astype(np.uint8), inverse


def spread(per_block: NDArray[Any], block: int, n: int) -> NDArray[Any]:
    """[rows, n]: each element's entry of [rows, blocks]."""
    return np.repeat(per_block, block, 1)[:, :n]


def packed(codes: Codes, bits: int) -> Codes:
    """Bytes of [rows, n] codes: each in the bits behind the one before, from the lowest; zeros behind the last."""
    each = np.unpackbits(codes[..., None], axis=2, bitorder="little")[..., :bits]
    return np.packbits(each.reshape(len(codes), -1), axis=1, bitorder="little")


def unpacked(data: Codes, bits: int, n: int) -> Codes:
    every = np.unpackbits(data, axis=1, bitorder="little")[:, : n * bits]
    return np.packbits(every.reshape(len(data), n, bits), axis=2, bitorder="little")[..., 0]
