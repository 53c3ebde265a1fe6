# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The gather/scatter kernel of p2p on every device: any sizes and alignments, every launch shape, nothing beside."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from mori import _core

pytestmark = pytest.mark.timeout(60)
INLINE = 8  # kIoCopyInline
GUARD = 32

DEVICES = [
    pytest.param(("cpu", 1), id="w1"),
    pytest.param(("cpu", 32), id="w32"),
    pytest.param(("cpu", 64), id="w64"),
    pytest.param(("cuda", 1), id="cuda", marks=pytest.mark.gpu),
    pytest.param(("hip", 1), id="hip", marks=pytest.mark.gpu),
]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest):
    kind, lanes = request.param
    count, why = _core.device_count(kind)
    if count == 0:
        pytest.skip(why)
    return _core.open_device(kind, 0, "", lanes, 2)


def copy(device, pieces: np.ndarray, blocks: int, warps: int) -> None:
    table = device.allocate_host(max(24, pieces.nbytes))
    np.ctypeslib.as_array((np.ctypeslib.ctypes.c_uint64 * pieces.size).from_address(table.host))[:] = pieces.ravel()
    inlined = np.zeros((INLINE, 3), np.uint64)
    if len(pieces) <= INLINE:
        inlined[: len(pieces)] = pieces
    args = struct.pack("QQ", 0 if len(pieces) <= INLINE else table.device, len(pieces)) + inlined.tobytes()
    kernel = device.function("io_copy", "io_copy", len(args))
    device.launch(kernel, _core.LaunchShape(blocks=blocks, warps=warps, shared_bytes=64 * 24), 0, args)
    device.synchronize()
    device.free_host(table)


@pytest.mark.parametrize("count", [0, 1, INLINE, INLINE + 1, 63, 64, 65, 500])
@pytest.mark.parametrize(("blocks", "warps"), [(1, 1), (3, 4), (16, 2)], ids=["1x1", "3x4", "16x2"])
def test_pieces_land_where_they_should(device, count: int, blocks: int, warps: int) -> None:
    random = np.random.default_rng(count + blocks)
    sizes = random.choice([1, 3, 16, 100, 512, 777, 4096], count)
    places = [np.concatenate([[0], np.cumsum(sizes + random.integers(1, GUARD, count))]) for _ in range(2)]
    order = random.permutation(count)
    starts = np.empty(count, np.int64)
    starts[order] = np.cumsum(np.concatenate([[0], (sizes[order] + 5)[:-1]])) if count else 0
    source = random.integers(0, 256, int(sizes.sum() + 5 * count + 64), np.uint8)
    landing = np.full(int(places[1][-1]) + 64, 0xEE, np.uint8)
    want = landing.copy()
    for index in range(count):
        at, start, size = int(places[1][index]), int(starts[index]), int(sizes[index])
        want[at : at + size] = source[start : start + size]
    from_, to = device.allocate(source.nbytes), device.allocate(landing.nbytes)
    device.copy(from_, source.ctypes.data, source.nbytes)
    device.copy(to, landing.ctypes.data, landing.nbytes)
    pieces = np.stack([to + places[1][:count], from_ + starts, sizes], 1).astype(np.uint64)
    copy(device, pieces, blocks, warps)
    device.copy(landing.ctypes.data, to, landing.nbytes)
    different = np.flatnonzero(landing != want)
    assert len(different) == 0, f"first difference at byte {different[0]}"
    device.free(from_)
    device.free(to)
