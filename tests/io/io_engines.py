# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Pairs of engines for tests: in one process, over any backend, with memories full of known bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from mori.io import EngineDesc, IOEngine, IOEngineConfig, IOEngineSession, MemoryDesc


class Pair(NamedTuple):
    """Engine `a` with memory `x` moves bytes between it and engine `b`'s memory `y`."""

    a: IOEngine
    b: IOEngine
    x: np.ndarray
    y: np.ndarray
    mine: MemoryDesc
    theirs: MemoryDesc
    session: IOEngineSession


def engine(key: str, *backends: str | tuple[str, dict[str, int]], **settings: Any) -> IOEngine:
    """An engine with exactly these backends, each a name or a name with its options."""
    made = IOEngine(key, IOEngineConfig(backends=[], **settings))
    for entry in backends or ("loopback",):
        name, options = (entry, {}) if isinstance(entry, str) else entry
        made.create_backend(name, options)
    return made


def introduce(a: IOEngine, b: IOEngine) -> None:
    a.register_remote_engine(EngineDesc.unpack(b.get_engine_desc().pack()))


def random_bytes(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)


@contextmanager
def engines(*backends: str | tuple[str, dict[str, int]], size: int = 1 << 20, **settings: Any) -> Iterator[Pair]:
    """Two engines with these backends; `x` is random, `y` is zero."""
    with engine("a", *backends, **settings) as a, engine("b", *backends, **settings) as b:
        x, y = random_bytes(size), np.zeros(size, np.uint8)
        mine, theirs = a.register_buffer(x), MemoryDesc.unpack(b.register_buffer(y).pack())
        introduce(a, b)
        yield Pair(a, b, x, y, mine, theirs, a.create_session(mine, theirs))


def blocks(count: int, size: int, pool: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Offsets of `count` distinct blocks of `size` bytes on both sides, in any order."""
    rng = np.random.default_rng(seed)
    return rng.permutation(pool)[:count] * size, rng.permutation(pool)[:count] * size


def assert_moved(pair: Pair, local: np.ndarray, remote: np.ndarray, size: int) -> None:
    """`y` has exactly the blocks of `x` that were written, and zeros elsewhere."""
    expected = np.zeros_like(pair.y)
    for lo, ro in zip(local.tolist(), remote.tolist(), strict=True):
        expected[ro : ro + size] = pair.x[lo : lo + size]
    wrong = np.flatnonzero(expected != pair.y)
    assert wrong.size == 0, f"{wrong.size} bytes differ, the first at {wrong[0]}"
