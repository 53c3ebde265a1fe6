# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The gather/scatter kernel of p2p on every device: any sizes and alignments, every launch shape, nothing beside, and
the mark that it writes itself."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from mori import _core

pytestmark = pytest.mark.timeout(60)
INLINE = 32  # kIoCopyInline
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


def shares(sizes: np.ndarray, shift: int, blocks: int) -> np.ndarray:
    """(piece, chunk, chunks) of each block."""
    counts = (sizes.astype(np.int64) + (1 << shift) - 1) >> shift
    ends, total = np.cumsum(counts), int(counts.sum())
    firsts = np.array([total * block // blocks for block in range(blocks + 1)])
    piece = np.minimum(np.searchsorted(ends, firsts[:-1], "right"), max(len(sizes) - 1, 0))
    return np.stack([piece, firsts[:-1] - (ends - counts)[piece], np.diff(firsts)], 1).astype(np.uint64)


def copy(device, pieces: np.ndarray, blocks: int, warps: int, shift: int) -> None:
    long = len(pieces) > INLINE
    words = [pieces.ravel(), shares(pieces[:, 2], shift, blocks).ravel() if long else np.zeros(0, np.uint64)]
    table = device.allocate_host(8 * (sum(map(len, words)) + 1))
    view = np.ctypeslib.as_array((np.ctypeslib.ctypes.c_uint64 * (table.bytes // 8)).from_address(table.host))
    view[: len(words[0])] = words[0]
    view[len(words[0]) : -1] = words[1]
    view[-1] = 1
    arrivals = device.allocate(256)
    inlined = np.zeros((INLINE, 3), np.uint64)
    if not long:
        inlined[: len(pieces)] = pieces
    kernel = None
    for mark in (2, 3):  # the second launch finds the arrivals as they should be
        args = struct.pack(
            "7Q",
            table.device if long else 0,
            table.device + 8 * len(words[0]),
            len(pieces),
            arrivals,
            table.device + 8 * (len(view) - 1),
            mark,
            shift,
        )
        args += inlined.tobytes()
        kernel = kernel or device.function("io_copy", "io_copy", len(args))
        device.launch(kernel, _core.LaunchShape(blocks=blocks, warps=warps, shared_bytes=64 * 24), 0, args)
        device.synchronize()
        assert view[-1] == mark
    device.free(arrivals)
    device.free_host(table)


@pytest.mark.parametrize("shift", [7, 12])
@pytest.mark.parametrize("count", [0, 1, INLINE, INLINE + 1, 63, 64, 65, 500])
@pytest.mark.parametrize(("blocks", "warps"), [(1, 1), (3, 4), (16, 2)], ids=["1x1", "3x4", "16x2"])
def test_pieces_land_where_they_should(device, count: int, blocks: int, warps: int, shift: int) -> None:
    random = np.random.default_rng(count + blocks)
    sizes = random.choice([1, 3, 16, 100, 512, 777, 4096, 9000], count)
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
    copy(device, pieces, blocks, warps, shift)
    device.copy(landing.ctypes.data, to, landing.nbytes)
    different = np.flatnonzero(landing != want)
    assert len(different) == 0, f"first difference at byte {different[0]}"
    device.free(from_)
    device.free(to)
