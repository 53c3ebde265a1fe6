# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""mori/blocks.hpp narrows and widens rows bit for bit as the formats' definitions say (narrow_reference.py), by
every group, on every target; nothing else is written."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compile_quickly import quick
from conftest import Lab
from element_types import TYPES, same, stored, widened
from narrow_reference import FORMATS, Floats, Format, packed, scales_of, spread, unpacked
from numpy.typing import NDArray

import mori

pytestmark = pytest.mark.timeout(120)
SOURCE = Path(__file__).parent / "kernels/blocks.cpp"
GROUPS = {"thread": 0, "warp": 1, "block": 2}
CODECS = {1: (32, True), 2: (128, False), 3: (16, False), 4: (64, True)}  # block, e8m0
SIZES = [0, 1, 2, 15, 16, 17, 33, 127, 128, 129, 1000, 2049]
POISON = 0xA5
Bytes = NDArray[np.uint8]


class BlocksArgs(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_uint64) for name in ("rows", "codes", "scales", "n")),
        *((name, ctypes.c_uint64) for name in ("row_stride", "code_stride", "scale_stride")),
        *((name, ctypes.c_uint32) for name in ("count", "group", "type", "codec")),
    )


class Rows:
    """Rows of some bytes in device memory, `gap` bytes apart and `offset` bytes behind an aligned address."""

    def __init__(self, lab: Lab, rows: int, nbytes: int, shift: int) -> None:
        self.lab, self.rows, self.nbytes, self.shift = lab, rows, nbytes, shift
        self.stride = (nbytes + 31) // 16 * 16 + shift
        self.held: Bytes = np.full(rows * self.stride + 32, POISON, np.uint8)
        self.at = lab.array(self.held)

    @property
    def address(self) -> int:
        return self.at + self.shift

    def _view(self) -> Bytes:
        inside = self.held[self.shift : self.shift + self.rows * self.stride]
        return inside.reshape(self.rows, self.stride)[:, : self.nbytes]

    def write(self, values: NDArray[Any]) -> None:
        self._view()[:] = np.ascontiguousarray(values).view(np.uint8).reshape(self.rows, self.nbytes)
        self.lab.write(self.at, self.held)

    def read(self) -> Bytes:
        """The rows; around them nothing has changed."""
        self.held = self.lab.read(self.at, np.uint8, self.held.size)
        found = self._view().copy()
        self._view()[:] = POISON
        assert (self.held == POISON).all()
        return found


class Kernels:
    def __init__(self, lab: Lab, name: str) -> None:
        self.lab, self.format = lab, FORMATS[name]
        flags = quick(lab.device)
        self.module = mori.compile_kernel(SOURCE, device=lab.device, defines={"FORMAT": name}, flags=flags)

    def launch(self, name: str, rows: Rows, codes: Rows, scales: Rows, n: int, **chosen: int) -> None:
        strides = (rows.stride, codes.stride, scales.stride)
        args = BlocksArgs(rows.address, codes.address, scales.address, n, *strides, count=rows.rows, **chosen)
        self.module.kernel(name).launch(args, blocks=2, warps=2, shared_bytes=4)
        self.lab.device.synchronize(0)

    def narrow(self, values: NDArray[Any], shift: int = 0, **chosen: int) -> tuple[Bytes, Bytes]:
        """(bytes of codes, bytes of scales) of rows of a type."""
        count, n = values.shape
        rows, codes, scales = self.rows(count, n, values.itemsize, shift, chosen["codec"])
        rows.write(values)
        self.launch("narrow_rows", rows, codes, scales, n, **chosen)
        return codes.read(), scales.read()

    def widen(self, held: Bytes, scale: Bytes, n: int, itemsize: int, shift: int = 0, **chosen: int) -> Bytes:
        rows, codes, scales = self.rows(len(held), n, itemsize, shift, chosen["codec"])
        codes.write(held)
        scales.write(scale)
        self.launch("widen_rows", rows, codes, scales, n, **chosen)
        return rows.read()

    def rows(self, count: int, n: int, itemsize: int, shift: int, codec: int) -> tuple[Rows, Rows, Rows]:
        block, e8m0 = CODECS.get(codec, (1, True))
        scale_bytes = -(-n // block) * (1 if e8m0 else 4) if codec else 0
        make = Rows
        return (
            make(self.lab, count, n * itemsize, shift * itemsize),
            make(self.lab, count, -(-n * self.format.bits // 8), shift),
            make(self.lab, count, scale_bytes, shift * 4),
        )


@pytest.fixture(params=FORMATS)
def kernels(each_lab: Lab, request: pytest.FixtureRequest, kernel_cache: Path) -> Kernels:
    return Kernels(each_lab, request.param)


@pytest.fixture(params=GROUPS)
def group(request: pytest.FixtureRequest) -> int:
    return GROUPS[request.param]


def every_kind(n: int, seed: int) -> Floats:
    """Rows of every kind of value."""
    random = np.random.default_rng(seed)
    normal = random.standard_normal((9, n)).astype(np.float32)
    normal[1] *= np.float32(1e-6)
    normal[2] *= np.float32(1000) ** random.integers(-3, 4, n).astype(np.float32)
    normal[3] = np.where(random.random(n) < 0.5, -0.0, 0.0)
    normal[4] *= np.float32(1e-40)
    normal[5] = np.where(random.random(n) < 0.3, np.float32(3.38e38), np.clip(normal[5], -3, 3) * np.float32(1e38))
    normal[6, random.random(n) < 0.1] = np.nan
    normal[7, random.random(n) < 0.02] = -np.inf
    normal[8] = np.round(normal[8] * 4) / 8  # many ties
    return normal


def between(format_: Format) -> Floats:
    """All values, what lies halfway between two, and their neighbours in fp32."""
    values = format_.values()
    finite = np.sort(values[np.isfinite(values)])
    exact = np.concatenate([finite, (finite[1:] + finite[:-1]) / 2]).astype(np.float32)
    above, below = (np.nextafter(exact, np.float32(to)) for to in (np.inf, -np.inf))
    special = [0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 1e-45, -1e-40, 3.4e38, -3.4e38, 1e-12]
    return np.concatenate([exact, above, below, np.array(special, np.float32)])[None]


@pytest.mark.parametrize("type_", TYPES)
def test_every_value_has_the_nearest_code(kernels: Kernels, type_: str) -> None:
    """All 65536 values of the 16-bit types, and all borders in fp32."""
    if type_ == "fp32":
        held: NDArray[Any] = between(kernels.format)
    else:
        held = np.arange(1 << 16, dtype=np.uint16).reshape(16, -1)
    codes, _ = kernels.narrow(held, group=GROUPS["warp"], type=TYPES[type_], codec=0)
    with np.errstate(invalid="ignore"):
        wanted = kernels.format.encode(widened(held, type_))
    found = unpacked(codes, kernels.format.bits, held.shape[1])
    if kernels.format.bits == 8:
        table = kernels.format.values()
        same(table[found], table[wanted])
        nan = np.isnan(table[wanted])
        found, wanted = np.where(nan, 0, found), np.where(nan, 0, wanted)
    same(found, wanted)


@pytest.mark.parametrize("type_", TYPES)
def test_every_code_has_its_value(kernels: Kernels, type_: str, group: int) -> None:
    bits = kernels.format.bits
    codes = np.arange(256, dtype=np.uint8)[None]
    n = 256 * 8 // bits
    itemsize = 4 if type_ == "fp32" else 2
    none = np.zeros((1, 0), np.uint8)
    found = kernels.widen(codes, none, n, itemsize, group=group, type=TYPES[type_], codec=0)
    values = kernels.format.values()[unpacked(codes, bits, n)].astype(np.float32)
    same(widened(found.view(f"u{itemsize}"), type_), widened(stored(values, type_).view(f"u{itemsize}"), type_))


@pytest.mark.parametrize("name", [name for name, format_ in FORMATS.items() if format_.torch])
def test_torch_means_the_same_by_every_code(name: str) -> None:
    torch = pytest.importorskip("torch")
    codes = torch.arange(256, dtype=torch.uint8).view(getattr(torch, FORMATS[name].torch))
    same(FORMATS[name].values().astype(np.float32), codes.float().numpy())


def check_codec(kernels: Kernels, group: int, type_: str, codec: int, n: int, shift: int) -> None:
    block, e8m0 = CODECS[codec]
    chosen = {"group": group, "type": TYPES[type_], "codec": codec, "shift": shift}
    bits = kernels.format.bits
    held = stored(every_kind(n, seed=n), type_)
    values = widened(held, type_)
    codes, scales = kernels.narrow(held, **chosen)
    wanted_scales, inverse = scales_of(values, kernels.format.limit, block, e8m0)
    same(np.ascontiguousarray(scales).view(wanted_scales.dtype).reshape(wanted_scales.shape), wanted_scales)
    with np.errstate(invalid="ignore", over="ignore"):
        wanted = kernels.format.encode(values * spread(inverse, block, n))
    table = kernels.format.values().astype(np.float32)
    found = unpacked(codes, bits, n)
    same(table[found], table[wanted])
    same(codes, packed(found, bits))  # behind the last are zeros

    back = kernels.widen(codes, scales, n, held.itemsize, **chosen)
    factors = wanted_scales
    if e8m0:
        factors = np.where(wanted_scales == 255, np.nan, np.ldexp(1.0, wanted_scales.astype(int) - 127))
    with np.errstate(invalid="ignore", over="ignore"):
        product = table[found] * spread(factors.astype(np.float32), block, n)
    again = widened(np.ascontiguousarray(back).view(held.dtype).reshape(held.shape), type_)
    same(again, widened(stored(product, type_), type_))


@pytest.mark.parametrize("shift", [0, 1])
@pytest.mark.parametrize("codec", CODECS)
def test_blocks_of_every_size(kernels: Kernels, group: int, codec: int, shift: int) -> None:
    for type_ in TYPES if codec <= 2 else ["bf16"]:
        for n in SIZES:
            check_codec(kernels, group, type_, codec, n, shift)
