# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""OpenSHMEM's type tables, and `Suite`: compiles a kernel file for the ranks' device, gives out memory, runs lists of
cases and compares every byte of every heap and of every rank's private memory with a model.

The heaps start full of random bytes, so a byte that nobody should have written is noticed wherever it is. A test takes
pieces of memory (the same offsets on all ranks), adds cases to the ranks' lists and applies each to the model at once;
cases of a launch touch nothing in common, so the order of the groups does not matter.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from compile_quickly import quick
from numpy.typing import NDArray
from shmem_ranks import Error, Ranks

import mori

HERE = Path(__file__).parent
SCOPES = {"thread": (2, 2), "warp": (2, 2), "block": (2, 2)}  # blocks, warps of a launch
ANY_PE = (1 << 32) - 1
REFUSAL_UNREACHABLE = 6  # mori::Refusal
MASK64 = (1 << 64) - 1

# The C types behind OpenSHMEM's names, in the order of conformance.hpp, as numpy sees them.
DTYPES: dict[str, str] = {
    "float": "f4",
    "double": "f8",
    "char": "i1",
    "schar": "i1",
    "short": "i2",
    "int": "i4",
    "long": "i8",
    "longlong": "i8",
    "uchar": "u1",
    "ushort": "u2",
    "uint": "u4",
    "ulong": "u8",
    "ulonglong": "u8",
}
ALIASES = {
    "int8": "schar",
    "int16": "short",
    "int32": "int",
    "int64": "long",
    "uint8": "uchar",
    "uint16": "ushort",
    "uint32": "uint",
    "uint64": "ulong",
    "size": "ulong",
    "ptrdiff": "long",
}
# OpenSHMEM's tables that differ by type; all 24 names without longdouble are in those of puts, gets and collectives.
BITWISE_REDUCE = [
    "uchar", "ushort", "uint", "ulong", "ulonglong", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32",
    "uint64", "size",
]  # fmt: skip
MINMAX_REDUCE = ["char", "schar", "short", "int", "long", "longlong", "ptrdiff", *BITWISE_REDUCE, "float", "double"]

# The lists of conformance.hpp: all types, or one of every size and kind.
ALL_TYPES = {
    "rma": list(DTYPES),
    "amo": ["float", "double", "int", "long", "longlong", "uint", "ulong", "ulonglong"],
    "wait": ["int", "long", "longlong", "uint", "ulong", "ulonglong"],
    "teams": list(DTYPES),
}
FEW_TYPES = {
    "rma": ["float", "double", "schar", "ushort", "long"],
    "amo": ["float", "double", "int", "ulong"],
    "wait": ["int", "ulong"],
    "teams": ["float", "schar", "ushort", "long"],
}


def c_type(name: str) -> str:
    return ALIASES.get(name, name)


def in_table(table: Sequence[str], c: str) -> bool:
    return any(c_type(name) == c for name in table)


class Piece(NamedTuple):
    """Memory at the same offset on every rank, of the heap or of what is private to each."""

    symmetric: bool
    offset: int
    nbytes: int


class Suite:
    def __init__(
        self,
        ranks: Ranks,
        family: str,
        *,
        all_types: bool,
        flags: Sequence[str] = (),
        seed: int = 1,
        room: int | None = None,
    ) -> None:
        self.ranks, self.family = ranks, family
        self.types = (ALL_TYPES if all_types else FEW_TYPES)[family]
        self.rng = np.random.default_rng(seed)
        defines = {"MORI_TEST_ALL_TYPES": "1"} if all_types else {}
        self.modules = [
            mori.compile_kernel(HERE / f"{family}.cpp", device=device, defines=defines, flags=(*quick(device), *flags))
            for device in ranks.devices
        ]
        self.room = ranks.room if room is None else room
        self.allocated: list[list[int]] = [[] for _ in range(ranks.size)]
        self.reset()

    def reset(self) -> None:
        """Random bytes everywhere, nothing taken."""
        shape = (self.ranks.size, self.room)
        self.heap = self.rng.integers(0, 256, shape, np.uint8)
        self.private = self.rng.integers(0, 256, shape, np.uint8)
        self._first = (self.heap.copy(), self.private.copy())  # what the memory holds before the launch
        self._taken = {True: 0, False: 0}

    def take(
        self, nbytes: int, align: int = 1, symmetric: bool = True, shift: int = 0, gap: int | None = None
    ) -> Piece:
        """`shift` bytes behind a multiple of `align`; behind it a few bytes that nobody should touch."""
        offset = -(-self._taken[symmetric] // align) * align + shift
        self._taken[symmetric] = offset + nbytes + (int(self.rng.integers(1, 24)) if gap is None else gap)
        if self._taken[symmetric] > self.room:
            raise MemoryError(f"the cases need more than {self.room} bytes")
        return Piece(symmetric, offset, nbytes)

    def address(self, rank: int, piece: Piece) -> int:
        return self.ranks.address(rank, piece.offset) if piece.symmetric else self.ranks.source[rank] + piece.offset

    def view(self, rank: int, piece: Piece, dtype: Any = np.uint8) -> NDArray[Any]:
        """The model's bytes of a piece, to read and to write."""
        memory = self.heap if piece.symmetric else self.private
        return memory[rank, piece.offset : piece.offset + piece.nbytes].view(dtype)

    def start_with(self, rank: int, piece: Piece, values: NDArray[Any]) -> None:
        """What a piece holds before the launch, and in the model."""
        first = self._first[0 if piece.symmetric else 1]
        for memory in (first, self.heap if piece.symmetric else self.private):
            memory[rank, piece.offset : piece.offset + values.nbytes] = values.view(np.uint8).ravel()

    def expect_nothing(self) -> None:
        """All bytes as they are before the launch."""
        self.heap, self.private = (memory.copy() for memory in self._first)

    def worlds_without_path(self, rank: int, pe: int) -> list[bytes]:
        """The ranks' Worlds, but in the table of `rank` `pe` has no address."""
        worlds = [self.ranks.world(r) for r in range(self.ranks.size)]
        bases = self.ranks.read(rank, self.ranks.heaps[rank].bases_address, self.ranks.size, np.uint64)
        bases[pe] = 0
        worlds[rank] = struct.pack("<Q", self.to_device(rank, bases)) + worlds[rank][8:32] + bytes(8)
        return worlds

    def expect_unreachable(self, rank: int, pe: int) -> None:
        """The error word says so; it is cleared."""
        error = self.take_error(rank)
        assert (error.state, error.wait, error.refusal, error.peer) == (2, 0, REFUSAL_UNREACHABLE, pe), error

    def take_error(self, rank: int) -> Error:
        """The error word, which is clean afterwards."""
        error = self.ranks.error(rank)
        self.ranks.write(rank, self.ranks.errors[rank].device, np.zeros(8, np.uint64))
        return error

    def upload(self) -> None:
        heap, private = self._first
        for rank in range(self.ranks.size):
            self.ranks.write(rank, self.ranks.address(rank), heap[rank])
            self.ranks.write(rank, self.ranks.source[rank], private[rank])

    def to_device(self, rank: int, values: NDArray[Any]) -> int:
        """The address of a copy, kept until close()."""
        address: int = self.ranks.devices[rank].allocate(max(values.nbytes, 8))
        self.allocated[rank].append(address)
        if values.nbytes:
            self.ranks.write(rank, address, values)
        return address

    def table(self, rank: int, rows: Sequence[Sequence[int]]) -> int:
        """The address of a list of cases: rows of 64-bit words."""
        return self.to_device(rank, np.array([[int(word) & MASK64 for word in row] for row in rows], np.uint64))

    def launch(self, rank: int, name: str, arguments: bytes, *, blocks: int, warps: int) -> None:
        kernel = self.modules[rank].kernel(name)
        kernel.launch(arguments, blocks=blocks, warps=warps, shared_bytes=16, stream=self.ranks.streams[rank])

    def run(
        self, name: str, lists: Sequence[Sequence[Sequence[int]]], scope: str, *, world: Sequence[bytes] | None = None
    ) -> None:
        """Launches a kernel of CasesArgs on every rank, each with its list, on fresh memory, and waits for all."""
        self.upload()
        scopes = list(SCOPES)
        tables = [self.table(rank, rows) for rank, rows in enumerate(lists)]
        blocks, warps = SCOPES[scope]
        for rank, rows in enumerate(lists):
            head = self.ranks.world(rank) if world is None else world[rank]
            arguments = head + struct.pack("<QQII", tables[rank], len(rows), scopes.index(scope), 0)
            self.launch(rank, name, arguments, blocks=blocks, warps=warps)
        self.ranks.synchronize()

    def check(self, describe: Any = None) -> None:
        """Every byte is as the model says. `describe(symmetric, rank, offset)` names the case at a byte."""
        for symmetric, memory in ((True, self.heap), (False, self.private)):
            for rank in range(self.ranks.size):
                start = self.ranks.address(rank) if symmetric else self.ranks.source[rank]
                found = self.ranks.read(rank, start, self.room)
                different = np.flatnonzero(found != memory[rank])
                if different.size == 0:
                    continue
                first = int(different[0])
                where = f"rank {rank}'s {'heap' if symmetric else 'private memory'}"
                raise AssertionError(
                    f"{where}: {different.size} bytes differ, the first at {first}: {found[first]} instead of "
                    f"{memory[rank, first]}. {describe(symmetric, rank, first) if describe else ''}"
                )

    def no_errors(self) -> None:
        for rank in range(self.ranks.size):
            error = self.ranks.error(rank)
            assert error.state == 0, (rank, error)

    def close(self) -> None:
        for rank, addresses in enumerate(self.allocated):
            for address in addresses:
                self.ranks.devices[rank].free(address)
        self.allocated = [[] for _ in range(self.ranks.size)]


class Places:
    """Which case wrote where, to name it when a byte is wrong."""

    def __init__(self) -> None:
        self._places: list[tuple[bool, int, int, str]] = []

    def add(self, piece: Piece, what: str) -> None:
        self._places.append((piece.symmetric, piece.offset, piece.offset + piece.nbytes, what))

    def __call__(self, symmetric: bool, rank: int, offset: int) -> str:
        near = [
            (max(start - offset, offset - end, 0), what) for kind, start, end, what in self._places if kind == symmetric
        ]
        distance, what = min(near, default=(0, "no case"))
        return f"case there: {what}" if distance == 0 else f"{distance} bytes away: {what}"
