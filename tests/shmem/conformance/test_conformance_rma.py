# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Puts and gets: every form, scope, type and size, to oneself and to another; not a byte more than was asked
for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from shmem_cases import DTYPES, SCOPES, Places, Suite

OPS = [
    "put", "put_nbi", "putmem", "putmem_nbi", "get", "get_nbi", "getmem", "getmem_nbi", "p", "g", "iput",
    "iput_nbi", "iget", "iget_nbi", "put_signal", "put_signal_nbi", "putmem_signal", "putmem_signal_nbi",
    "signal_op",
]  # fmt: skip
SIZES = [0, 1, 3, 31, 259]
OVERWRITE_SOURCE, LOOK_AT_DEST = 1, 2
FLAGS = 8  # where they are in a case
MAKE = Callable[..., Suite]


class Rma:
    """Makes cases of the kernel and applies them to the model."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self.size = suite.ranks.size
        self.lists: list[list[list[int]]] = [[] for _ in range(self.size)]
        self.places = Places()
        self.wrong = [suite.to_device(rank, np.zeros(1, np.uint64)) for rank in range(self.size)]

    def add(self, rank: int, op: str, name: str, n: int, pe: int, *, dst: int = 1, sst: int = 1) -> None:
        suite, rng = self.suite, self.suite.rng
        width = np.dtype(DTYPES[name]).itemsize
        step = 1 if "mem" in op else width  # putmem and getmem take any alignment
        strided = op in ("iput", "iput_nbi", "iget", "iget_nbi")
        gets = "get" in op or op == "g"
        dst, sst = (dst, sst) if strided else (1, 1)
        span = [((n - 1) * stride + 1) * width if n else 0 for stride in (dst, sst)]
        shifts = [int(rng.integers(0, 16)) // step * step for _ in span]
        # what is remote is symmetric; what is local may be either
        dest = suite.take(span[0], 16, not gets or bool(rng.integers(2)), shifts[0])
        source = suite.take(span[1], 16, gets or bool(rng.integers(2)), shifts[1])
        signal = suite.take(8, 8) if "signal" in op else None
        word, signal_op = int(rng.integers(1, 1 << 63)), int(rng.integers(2))
        flags = OVERWRITE_SOURCE if op in ("put", "putmem", "iput", "put_signal", "putmem_signal") and sst == 1 else 0
        if op in ("get", "getmem", "iget"):
            flags |= LOOK_AT_DEST
        what = f"rank {rank}: {op}<{name}> of {n} to or from {pe}"
        for piece in (dest, source, *([signal] if signal else [])):
            self.places.add(piece, what)
        self.lists[rank].append(
            [
                OPS.index(op), suite.types.index(name), suite.address(rank, dest) if n else 0,
                suite.address(rank, source) if n else 0, n, dst, sst, pe, flags,
                suite.address(rank, signal) if signal else 0, word, signal_op,
                suite.address(pe, source) if gets else 0, self.wrong[rank],
            ]
        )  # fmt: skip
        reader, writer = (pe, rank) if gets else (rank, pe)
        if n:
            taken = suite.view(reader, source)
            elements = (np.arange(n) * sst * width)[:, None] + np.arange(width)
            suite.view(writer, dest)[(np.arange(n) * dst * width)[:, None] + np.arange(width)] = taken[elements]
            if flags & OVERWRITE_SOURCE:
                taken ^= 0xFF
        if signal:
            there = suite.view(pe, signal, np.uint64)
            there[0] = np.uint64(word) if signal_op == 0 else np.uint64((int(there[0]) + word) % 2**64)

    def run(self, scope: str) -> None:
        self.suite.no_errors()
        self.suite.run("conformance_rma", self.lists, scope)
        self.suite.no_errors()
        self.suite.check(self.places)
        for rank, address in enumerate(self.wrong):
            wrong = self.suite.ranks.read(rank, address, 1, np.uint64)
            assert int(wrong[0]) == 0, f"rank {rank}: {wrong[0]} bytes were not there when a get returned"


def sizes_of(op: str) -> list[int]:
    return [1] if op in ("p", "g") else [0] if op == "signal_op" else SIZES


@pytest.mark.timeout(300)
@pytest.mark.parametrize("scope", SCOPES)
def test_every_operation_type_and_size(make_suite: MAKE, scope: str) -> None:
    suite = make_suite(3, "rma", room=12 << 20)
    cases = Rma(suite)
    for rank in range(3):
        for op in OPS:
            for name in suite.types:
                for n in sizes_of(op):
                    for pe in (rank, (rank + 1) % 3, (rank + 2) % 3)[: 3 if n == 3 else 2]:
                        dst, sst = ((1, 1), (3, 1), (1, 5), (7, 3))[(n + pe) % 4]
                        if dst * sst > 7 and n > 100:
                            dst, sst = 3, 1
                        cases.add(rank, op, name, n, pe, dst=dst, sst=sst)
    cases.run(scope)


@pytest.mark.timeout(100)
@pytest.mark.parametrize("scope", SCOPES)
def test_large_and_odd(make_suite: MAKE, scope: str) -> None:
    suite = make_suite(2, "rma", room=40 << 20, few=True)
    cases = Rma(suite)
    for op in ("put", "get_nbi", "putmem", "get", "put_signal"):
        for rank in range(2):
            cases.add(rank, op, "float", (1 << 18) + 1, 1 - rank)
    for rank in range(2):
        cases.add(rank, "iput", "ushort", 30001, 1 - rank, dst=5, sst=3)
        cases.add(rank, "iget", "double", 30001, 1 - rank, dst=3, sst=5)
    cases.run(scope)


@pytest.mark.timeout(100)
@pytest.mark.parametrize("scope", SCOPES)
def test_a_pe_without_a_path_is_refused(make_suite: MAKE, scope: str) -> None:
    """Rank 2 has no address in rank 0's table: nothing is written anywhere, and the error word names it."""
    suite = make_suite(3, "rma", room=1 << 14, few=True)
    for op in OPS:
        suite.reset()
        cases = Rma(suite)
        cases.add(0, op, "long", sizes_of(op)[-1], 2)
        cases.lists[0][0][FLAGS] = 0
        suite.expect_nothing()
        suite.run("conformance_rma", cases.lists, scope, world=suite.worlds_without_path(0, 2))
        suite.expect_unreachable(0, 2)
        if op != "g":  # has to return something
            suite.check(cases.places)
