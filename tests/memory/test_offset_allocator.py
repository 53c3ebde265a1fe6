# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The offset allocator against a model that marks every byte: ranges never overlap, lie in one chunk, are
aligned, are found whenever one fits, and freeing everything gives every chunk back whole."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mori.errors import ConfigError

from mori import _core

pytestmark = pytest.mark.timeout(60)

grow = st.tuples(st.just("grow"), st.integers(1, 300))
allocate = st.tuples(st.just("allocate"), st.integers(0, 200), st.sampled_from([1, 2, 8, 64, 128]))
free = st.tuples(st.just("free"), st.integers(0, 1 << 16))


class Model:
    def __init__(self) -> None:
        self.used: list[bool] = []
        self.seams = [0]

    def grow(self, nbytes: int) -> None:
        self.used += [False] * nbytes
        self.seams.append(len(self.used))

    def fits(self, offset: int, nbytes: int) -> bool:
        within = any(a <= offset and offset + nbytes <= b for a, b in zip(self.seams, self.seams[1:], strict=False))
        return within and not any(self.used[offset : offset + nbytes])

    def mark(self, offset: int, nbytes: int, value: bool) -> None:
        self.used[offset : offset + nbytes] = [value] * nbytes


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(grow, allocate, free), max_size=60))
def test_agrees_with_a_map_of_bytes(steps: list[tuple]) -> None:
    real, model, live = _core.OffsetAllocator(), Model(), {}
    for step in steps:
        if step[0] == "grow":
            real.grow(step[1])
            model.grow(step[1])
        elif step[0] == "allocate":
            nbytes, alignment = max(step[1], 1), step[2]
            offset = real.allocate(step[1], alignment)
            if offset is None:
                assert not any(model.fits(at, nbytes) for at in range(0, len(model.used), alignment))
                continue
            assert offset % alignment == 0
            assert model.fits(offset, nbytes)
            model.mark(offset, nbytes, True)
            live[offset] = nbytes
        elif live:
            offset = sorted(live)[step[1] % len(live)]
            real.free(offset)
            model.mark(offset, live.pop(offset), False)
        statistics = real.statistics
        assert statistics.used_bytes == sum(model.used)
        assert statistics.capacity_bytes == len(model.used)
        assert statistics.allocations == len(live)
    for offset in live:
        real.free(offset)
    assert real.statistics.free_ranges == len(model.seams) - 1  # chunks are never joined
    for begin, end in zip(model.seams, model.seams[1:], strict=False):
        assert real.statistics.largest_free_bytes >= end - begin


def test_same_calls_give_same_offsets() -> None:
    def play() -> list[int | None]:
        a = _core.OffsetAllocator(1 << 20)
        offsets = [a.allocate(100 + 37 * i % 901, 256) for i in range(200)]
        for offset in offsets[::3]:
            a.free(offset)
        return offsets + [a.allocate(300, 64) for _ in range(50)]

    assert play() == play()


def test_takes_the_smallest_hole_that_holds() -> None:
    a = _core.OffsetAllocator(10_000)
    blocks = [a.allocate(n, 1) for n in (1000, 10, 500, 10, 700, 10)]
    for hole in (0, 2, 4):
        a.free(blocks[hole])
    assert a.allocate(600, 1) == blocks[4]
    assert a.allocate(500, 1) == blocks[2]


def test_offsets_beyond_32_bits() -> None:
    a = _core.OffsetAllocator(1 << 45)
    first, second = a.allocate((1 << 44) + 1, 1 << 21), a.allocate(1 << 43, 1 << 21)
    assert (first, second) == (0, (1 << 44) + (1 << 21))
    assert a.statistics.used_bytes == (1 << 44) + 1 + (1 << 43)
    assert a.allocate((1 << 64) - 1, 1) is None


@pytest.mark.parametrize("alignment", [0, 3, 48, (1 << 64) - 1])
def test_refuses_an_alignment_that_is_no_power_of_two(alignment: int) -> None:
    with pytest.raises(ConfigError, match=f"alignment={alignment}"):
        _core.OffsetAllocator(1024).allocate(8, alignment)


def test_refuses_to_free_what_it_did_not_give() -> None:
    a = _core.OffsetAllocator(1024)
    offset = a.allocate(100, 1)
    for wrong in (offset + 1, 512):
        with pytest.raises(ConfigError, match=f"offset={wrong}"):
            a.free(wrong)
    a.free(offset)
    with pytest.raises(ConfigError, match=f"offset={offset}"):
        a.free(offset)


def test_refuses_to_grow_past_63_bits() -> None:
    a = _core.OffsetAllocator(1 << 63)
    with pytest.raises(ConfigError, match="2\\^63"):
        a.grow(1)
