# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The planner keeps every byte, in order and in bounds; merges what touches; cuts and deals out exactly; is fast."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mori.errors import ConfigError
from mori.io import Strided

from mori import _core

planner = _core.io.planner
WINDOW = 1 << 12
BLOCK = st.tuples(st.integers(0, WINDOW - 64), st.integers(0, WINDOW - 64), st.integers(0, 64))
BIG = 1 << 40
FAR = st.integers(0, BIG)


def bytes_of(segments: list[tuple[int, int, int]]) -> list[tuple[int, int]]:
    """Every (remote, local) pair of bytes."""
    return sorted((remote + i, local + i) for local, remote, size in segments for i in range(size))


def plan(segments: list[tuple[int, int, int]], window: int = WINDOW) -> tuple[list[tuple[int, int, int]], int]:
    columns = [np.array(column, np.int64) for column in zip(*segments, strict=True)] or [np.zeros(0, np.int64)] * 3
    return planner.make_plan(*columns, window, window)


@settings(deadline=None)
@given(st.lists(BLOCK, max_size=60))
def test_a_plan_has_the_same_bytes_in_order_and_merged(segments: list[tuple[int, int, int]]) -> None:
    planned, total = plan(segments)
    assert bytes_of(planned) == bytes_of(segments)
    assert total == sum(size for _, _, size in segments)
    for before, after in pairwise(planned):
        assert before[1] <= after[1]
        assert not (before[0] + before[2] == after[0] and before[1] + before[2] == after[1]), "neighbours not merged"


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, BIG), st.integers(1, 99)), max_size=200), st.integers(0, 40)
)
def test_sorting_is_stable(segments: list[tuple[int, int, int]], shift: int) -> None:
    shifted = [(local, (remote >> 20 << shift), size) for local, remote, size in segments]
    assert planner.sort_by_remote(shifted) == sorted(shifted, key=lambda s: s[1])


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, BIG), st.integers(0, BIG), st.integers(0, 300)), max_size=20), st.integers(1, 70)
)
def test_cutting_keeps_bytes(segments: list[tuple[int, int, int]], most: int) -> None:
    pieces = planner.cut(segments, most)
    assert all(0 < size <= most for _, _, size in pieces)
    assert bytes_of(pieces) == bytes_of(segments)


@settings(deadline=None)
@given(
    st.lists(st.tuples(FAR, FAR, st.integers(1, 5000)), max_size=20),
    st.lists(st.sampled_from([0.0, 0.5, 1.0, 3.0]), min_size=1, max_size=5).filter(any),
    st.integers(1, 64),
)
def test_rails_get_their_share(segments: list[tuple[int, int, int]], weights: list[float], granule: int) -> None:
    rails = planner.split(segments, weights, granule)
    flat = [piece for rail in rails for piece in rail]
    assert bytes_of(flat) == bytes_of(segments)
    total, due, dealt = sum(s[2] for s in segments), 0.0, 0
    for rail, weight in zip(rails, weights, strict=True):
        if weight == 0:
            assert rail == []
        due += total * weight / sum(weights)
        dealt += sum(size for _, _, size in rail)
        assert abs(dealt - due) <= granule + 1


def test_split_of_nothing_and_bad_weights() -> None:
    assert planner.split([], [1.0, 1.0], 8) == [[], []]
    for weights in ([0.0], [-1.0, 2.0], [float("nan")], [float("inf")], []):
        with pytest.raises(ConfigError):
            planner.split([(0, 0, 8)], weights, 8)


@settings(deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=12))
def test_parts_are_recognised(sizes: list[int]) -> None:
    whole, at = [], 0
    for i, size in enumerate(sizes):
        whole.append((10_000 - 100 * i, at, size))
        at += size + (i % 2)
    pieces = planner.cut(whole, 7)
    part = pieces[::2]
    for write in (True, False):
        assert planner.is_part_of(write, part, whole)
        assert planner.is_part_of(write, [], whole)
        assert not planner.is_part_of(write, [part[0], part[0]], whole), "a byte twice"
        local, remote, size = part[0]
        assert not planner.is_part_of(write, [(local + 1, remote, size)], whole)
        assert not planner.is_part_of(write, [(local, remote + 100_000, size)], whole)


@pytest.mark.parametrize(
    ("local", "remote", "sizes", "words"),
    [
        ([0], [0], [-1], "sizes[0]=-1 is negative"),
        ([5, -1], [0, 0], [1, 1], "local_offsets[1]=-1 is negative"),
        ([0], [-8], [8], "remote_offsets[0]=-8 is negative"),
        ([0, 96], [0, 0], [8, 8], "local_offsets[1]=96 and sizes[1]=8 leave the local memory of 100 bytes"),
        ([0], [201], [0], "leave the remote memory of 200 bytes"),
        ([0], [0], [101], "leave the local memory"),
        ([2**62], [0], [2**62], "leave the local memory"),
        ([0, 1], [0], [1], "remote_offsets has 1 entries, local_offsets 2"),
        ([0, 1], [0, 1], [1, 1, 1], "sizes has 3 entries for 2 offsets"),
    ],
)
def test_refusals_name_argument_and_limit(local: list[int], remote: list[int], sizes: list[int], words: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        planner.make_plan(local, remote, sizes, 100, 200)
    assert words in str(refusal.value)


def test_one_size_serves_all_and_bases_are_added() -> None:
    assert planner.make_plan([0, 4, 64], [64, 68, 0], 4, 100, 100, 1000, 2000) == (
        [(1064, 2000, 4), (1000, 2064, 8)],
        12,
    )


@pytest.mark.parametrize("kind", [list, tuple, np.int64, np.int32, np.uint8, np.uint64, np.uint16, "every-other"])
def test_integers_come_in_many_forms(kind: object) -> None:
    values = [3, 1, 2]
    if kind == "every-other":
        form: object = np.array([3, 9, 1, 9, 2, 9])[::2]
    else:
        form = kind(values) if kind in (list, tuple) else np.array(values, kind)  # type: ignore[operator, call-overload]
    assert planner.make_plan(form, form, 1, 10, 10) == ([(1, 1, 3)], 3)


def test_strides_stand_for_their_offsets() -> None:
    segments, total = planner.make_plan([Strided(0, 10, 3), 7], Strided(100, -10, 4), 5, 1000, 1000)
    assert (sorted(segments), total) == ([(0, 100, 5), (7, 70, 5), (10, 90, 5), (20, 80, 5)], 20)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("order", ["random", "ascending", "consecutive", "descending"])
def test_a_million_blocks_are_planned_in_a_second(order: str) -> None:
    count, size = 10**6, 4096
    places = np.arange(count, dtype=np.int64)
    rng = np.random.default_rng(1)
    local = places if order == "consecutive" else rng.permutation(count)
    remote = {"random": rng.permutation(count), "descending": places[::-1].copy()}.get(order, places)
    began = time.perf_counter()
    kept = planner.count_planned(local * size, remote * size, size, count * size)
    assert time.perf_counter() - began < 1.0
    assert kept == (1 if order == "consecutive" else pytest.approx(count, rel=0.01))


def test_beyond_four_gigabytes() -> None:
    huge = (1 << 33) + 5
    assert planner.make_plan([0], [7], [huge], 1 << 40, 1 << 40) == ([(0, 7, huge)], huge)
    assert sum(size for _, _, size in planner.cut([(0, 7, huge)], 1 << 30)) == huge
