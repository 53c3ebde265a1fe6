# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""The tcp backend moves the right bytes, and no others: shapes of lists, both directions, many at once.

Both engines are built with ThreadSanitizer; a race is a failed exit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from net_programs import Failed, build, compiler
from tcp_crew import Engine, blocks, copied

pytestmark = pytest.mark.timeout(400)
SIZE = 24 << 20


@pytest.fixture(scope="module")
def program() -> Path:
    if compiler() is None:
        pytest.skip("no g++ to build the test programs with")
    return build("tcp_main", "thread")


@pytest.fixture(scope="module")
def pair(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, Engine]]:
    folder = tmp_path_factory.mktemp("tcp")
    a, b = Engine(program, "A", folder), Engine(program, "B", folder)
    a.introduce(b)
    b.introduce(a)
    yield a, b
    assert "WARNING" not in a.close() + b.close()


def mixed(seed: int, count: int, most: int) -> np.ndarray:
    """Pieces of any size at any place, neither side overlapping itself."""
    random = np.random.default_rng(seed)
    sizes = random.integers(1, most, count)
    gaps = random.integers(0, 50, (2, count))
    local = np.cumsum(sizes + gaps[0]) - sizes
    order = random.permutation(count)
    remote = np.empty(count, dtype=np.int64)
    remote[order] = np.cumsum(sizes[order] + gaps[1][order]) - sizes[order]
    return np.stack([local, remote, sizes], axis=1)


LISTS = {
    "1-byte": np.array([[7, 13, 1]]),
    "1x4KiB": np.array([[4096, 8192, 4096]]),
    "2-neighbours": np.array([[0, 64, 64], [64, 128, 64]]),
    "1x20MiB": np.array([[1, 3, 20 << 20]]),
    "1000x4KiB": blocks(1000, 4096, 5000, 1),
    "300x64KiB": blocks(300, 65536, 320, 2),
    "5000x100B": blocks(5000, 100, 9000, 3),
    "mixed-small": mixed(4, 3000, 700),
    "mixed-large": mixed(5, 40, 400_000),
    "7-pieces-of-a-uniform-table": blocks(7, 513, 20, 6),
}


@pytest.mark.parametrize("op", ["write", "read"])
@pytest.mark.parametrize("name", LISTS)
def test_bytes_arrive_and_nothing_else_changes(pair: tuple[Engine, Engine], op: str, name: str) -> None:
    a, b = pair
    here, there = a.memory(SIZE), b.memory(SIZE)
    random = np.random.default_rng(9)
    here.bytes[:] = random.integers(0, 256, SIZE, dtype=np.uint8)
    there.bytes[:] = random.integers(0, 256, SIZE, dtype=np.uint8)
    source, target = (here, there) if op == "write" else (there, here)
    expected, kept = copied(source.bytes, target.bytes, LISTS[name], op), source.bytes.copy()
    code, _, words = a.wait(a.go(a.session(here, there), op, LISTS[name]))
    assert code == 0, words
    assert np.array_equal(target.bytes, expected)
    assert np.array_equal(source.bytes, kept)


def test_many_transfers_at_once_in_both_directions(pair: tuple[Engine, Engine]) -> None:
    a, b = pair
    block, slots = 5000, 400
    lanes = []
    for engine, other in ((a, b), (b, a)):
        here, there = engine.memory(block * slots), other.memory(block * slots)
        here.bytes[:] = np.random.default_rng(11).integers(0, 256, here.size, dtype=np.uint8)
        session = engine.session(here, there)
        order = np.random.default_rng(12).permutation(slots)
        parts = np.array_split(np.stack([order * block, order[::-1] * block, np.full(slots, block)], axis=1), 40)
        lanes.append((engine, here, there, [engine.go(session, "write", part) for part in parts], parts))
    for engine, here, there, statuses, parts in lanes:
        assert [engine.wait(status)[0] for status in statuses] == [0] * len(statuses)
        assert np.array_equal(
            there.bytes, copied(here.bytes, np.zeros_like(there.bytes), np.concatenate(parts), "write")
        )


def test_a_message_comes_after_the_bytes(pair: tuple[Engine, Engine]) -> None:
    a, b = pair
    here, there = a.memory(4096), b.memory(4096)
    session = a.session(here, there)
    for turn in range(20):
        here.bytes[:] = turn + 1
        assert a.wait(a.go(session, "write", np.array([[0, 0, 4096]]), 10000, f"turn{turn}"))[0] == 0
        for _ in range(2000):
            if f"turn{turn}" in b("messages")[0]:
                break
        else:
            pytest.fail("the message did not come")
        assert (there.bytes == turn + 1).all()


@pytest.mark.parametrize("change", ["key", "id", "incarnation"])
def test_who_does_not_know_the_memory_is_refused(pair: tuple[Engine, Engine], change: str) -> None:
    a, b = pair
    here, there = a.memory(4096), b.memory(4096)
    there.bytes[:] = 7
    fields = {"key": there.key, "id": there.id, "incarnation": b.incarnation}
    fields[change] = {"key": "00" * 16, "id": "999999", "incarnation": str(int(b.incarnation) ^ 1)}[change]
    try:
        session = a("session", here.id, "B", fields["incarnation"], fields["id"], fields["key"], 4096)[0]
        code, _, words = a.wait(a.go(session, "write", np.array([[0, 0, 4096]])))
    except Failed as error:
        code, words = int(error.kind.split()[1]), str(error)
    assert code == {"key": 20, "id": 12, "incarnation": 14}[change], words
    assert (there.bytes == 7).all()


def test_an_idle_engine_uses_no_cpu(pair: tuple[Engine, Engine]) -> None:
    import time

    before = [int(engine("cpu")[0]) for engine in pair]
    time.sleep(1.0)
    after = [int(engine("cpu")[0]) for engine in pair]
    assert all(late - early < 20_000 for early, late in zip(before, after, strict=True))
