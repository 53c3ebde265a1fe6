# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Atomics: every operation and type against arithmetic in Python, words of 4 bytes side by side; and all lanes
of all ranks on the same words, whose totals are exact."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import reduce
from operator import or_, xor

import numpy as np
import pytest
from shmem_cases import DTYPES, Piece, Places, Suite

MAKE = Callable[..., Suite]
OPS = [
    "fetch", "set", "add", "inc", "swap", "compare_swap", "and", "or", "xor", "fetch_add", "fetch_inc", "fetch_and",
    "fetch_or", "fetch_xor", "fetch_nbi", "swap_nbi", "compare_swap_nbi", "fetch_add_nbi", "fetch_inc_nbi",
    "fetch_and_nbi", "fetch_or_nbi", "fetch_xor_nbi",
]  # fmt: skip
FLOAT_OPS = ["fetch", "set", "add", "swap", "fetch_add", "fetch_nbi", "swap_nbi", "fetch_add_nbi"]


def after(op: str, dtype: np.dtype, old: int, value: int, cond: int) -> int:
    """The word after the operation; words are their bits."""
    bits = 8 * dtype.itemsize
    if dtype.kind == "f" and op == "add":
        words = np.array([old, value], f"u{dtype.itemsize}").view(dtype)
        return int((words[:1] + words[1:]).view(f"u{dtype.itemsize}")[0])
    results = {
        "fetch": old,
        "set": value,
        "swap": value,
        "add": old + value,
        "inc": old + 1,
        "compare_swap": value if old == cond else old,
        "and": old & value,
        "or": old | value,
        "xor": old ^ value,
    }
    return results[op] % (1 << bits)


class Amo:
    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self.lists: list[list[list[int]]] = [[] for _ in range(suite.ranks.size)]
        self.places = Places()

    def word(self, name: str, rank: int, bits: int, symmetric: bool) -> Piece:
        width = np.dtype(DTYPES[name]).itemsize
        piece = self.suite.take(width, width, symmetric, gap=0)
        self.suite.start_with(rank, piece, np.array([bits], f"u{width}"))
        return piece

    def add(self, rank: int, op: str, name: str, pe: int, old: int, value: int, cond: int = 0) -> None:
        suite, dtype = self.suite, np.dtype(DTYPES[name])
        dest = self.word(name, pe, old, True)
        fetched = self.word(name, rank, 0x5A5A5A5A, False)
        self.places.add(dest, f"rank {rank}: {op}<{name}> at {pe}")
        self.places.add(fetched, f"rank {rank}: what {op}<{name}> fetched from {pe}")
        row = [OPS.index(op), suite.types.index(name), suite.address(rank, dest), value, cond, pe]
        self.lists[rank].append([*row, suite.address(rank, fetched)])
        plain = op.removesuffix("_nbi")
        fetches = plain.startswith("fetch") or plain in ("swap", "compare_swap")
        if plain != "fetch":
            plain = plain.removeprefix("fetch_")
        unsigned = f"u{dtype.itemsize}"
        suite.view(pe, dest, unsigned)[0] = after(plain, dtype, old, value, cond)
        if fetches:
            suite.view(rank, fetched, unsigned)[0] = old


def words_of(suite: Suite, name: str) -> list[tuple[int, int]]:
    """Pairs of words to work on: random ones and those where a carry or a sign could go wrong."""
    dtype = np.dtype(DTYPES[name])
    if dtype.kind == "f":
        values = np.array([1.5, -2.25, 1e30, -0.0, 3.0, 0.1], dtype).view(f"u{dtype.itemsize}").tolist()
        return [(values[0], values[1]), (values[2], values[2]), (values[3], values[4]), (values[5], values[5])]
    top, all_ones = 1 << (8 * dtype.itemsize - 1), (1 << 8 * dtype.itemsize) - 1
    random = suite.rng.integers(0, all_ones, 4, np.uint64, endpoint=True).tolist()
    return [(random[0], random[1]), (random[2], random[3]), (all_ones, 1), (top - 1, 1), (0, all_ones), (top, top)]


@pytest.mark.timeout(100)
def test_every_operation_and_type(make_suite: MAKE) -> None:
    suite = make_suite(3, "amo", room=1 << 20)
    cases = Amo(suite)
    for rank in range(3):
        for name in suite.types:
            for op in FLOAT_OPS if DTYPES[name].startswith("f") else OPS:
                for old, value in words_of(suite, name):
                    for pe in (rank, (rank + 1) % 3):
                        cases.add(rank, op, name, pe, old, value, cond=old if value % 3 else old ^ 1)
    suite.run("conformance_amo", cases.lists, "warp")
    suite.no_errors()
    suite.check(cases.places)


@pytest.mark.timeout(60)
def test_a_pe_without_a_path_is_refused(make_suite: MAKE) -> None:
    suite = make_suite(2, "amo", room=1 << 12, few=True)
    for op in OPS:
        suite.reset()
        cases = Amo(suite)
        cases.add(0, op, "int", 1, 5, 3)
        suite.expect_nothing()
        suite.run("conformance_amo", cases.lists, "thread", world=suite.worlds_without_path(0, 1))
        suite.expect_unreachable(0, 1)
        assert (suite.ranks.heap(1, suite.room) == suite.heap[1]).all(), op


# added untouched incremented compared, ored anded xored untouched2, added64 swapped ticket ored64, float untouched3
# double
WORDS = struct.Struct("<4I4I4QfId")


@pytest.mark.timeout(100)
@pytest.mark.parametrize("size", [2, 3])
def test_contended_words_lose_nothing_and_disturb_no_neighbour(make_suite: MAKE, size: int) -> None:
    suite = make_suite(size, "amo", room=1 << 20, few=True)
    ranks, blocks, warps = suite.ranks, 2, 2
    lanes = blocks * warps * ranks.warp_size
    rounds = 2000 // lanes + 3
    total, home = size * lanes * rounds, 1
    words, tickets = suite.take(WORDS.size, 64), suite.take(4 * total, 8)
    for rank in range(size):
        start = (0, 0xABCD1234, 0, 5, 0, 0xFFFFFFFF, 0, 0x1234ABCD, 0, 7, 0, 0, 0.0, 0xDEADBEEF, 0.0)
        suite.start_with(rank, words, np.frombuffer(WORDS.pack(*start), np.uint8))
        suite.start_with(rank, tickets, np.zeros(total, np.uint32))
    suite.upload()
    taken = [suite.to_device(rank, np.zeros(lanes, np.uint64)) for rank in range(size)]
    for rank in range(size):
        arguments = ranks.world(rank) + struct.pack(
            "<QQQQII", suite.address(rank, words), suite.address(rank, tickets), taken[rank], rounds, home, 0
        )
        suite.launch(rank, "conformance_contend", arguments, blocks=blocks, warps=warps)
    ranks.synchronize()
    suite.no_errors()
    numbers = range(1, size * lanes + 1)
    ored = reduce(or_, [1 << n % 32 for n in numbers])
    found = WORDS.unpack(ranks.read(home, suite.address(home, words), WORDS.size).tobytes())
    swapped = found[9]
    xored = reduce(xor, numbers) if rounds % 2 else 0
    assert found == (
        sum(numbers) * rounds % 2**32, 0xABCD1234, total, (5 + 3 * total) % 2**32,
        ored, 0xFFFFFFFF & ~ored, xored, 0x1234ABCD,
        ((sum(numbers) * rounds << 32) + total) % 2**64, swapped, total,
        reduce(or_, [1 << n % 64 for n in numbers]),
        float(total), 0xDEADBEEF, total * 0.5,
    )  # fmt: skip
    # what was swapped in was swapped out once, but for the last one
    put_in = 7 + sum(n + r * 1000 for n in numbers for r in range(rounds))
    assert sum(int(ranks.read(rank, taken[rank], lanes, np.uint64).sum()) for rank in range(size)) + swapped == put_in
    assert (ranks.read(home, suite.address(home, tickets), total, np.uint32) == 1).all()
    for rank in set(range(size)) - {home}:
        assert (ranks.heap(rank) == suite.heap[rank]).all()
