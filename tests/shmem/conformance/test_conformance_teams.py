# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Teams and collectives: teams of 1, 2, 3, 5 and 8 with strides, that overlap; sizes around and beyond the
workspace; in place; two teams at a time; a member that does not come. Reductions are equal bit for bit to those
in member order."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from shmem_cases import BITWISE_REDUCE, DTYPES, MINMAX_REDUCE, SCOPES, Piece, Places, Suite, in_table
from shmem_ranks import WAIT_BARRIER

MAKE = Callable[..., Suite]
OPS = [
    "sync", "barrier", "broadcast", "fcollect", "alltoall", "min", "max", "sum", "prod", "and", "or", "xor", "numbers",
]  # fmt: skip
REDUCE: dict[str, Callable[[Any, Any], Any]] = {
    "min": np.minimum,
    "max": np.maximum,
    "sum": np.add,
    "prod": np.multiply,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
}
WAIT_TEAM = 5  # mori::Wait
WORKSPACE = 96  # bytes of a member: a few elements, so that most calls need many rounds


class Team(NamedTuple):
    start: int
    stride: int
    size: int
    signals: Piece
    workspace: Piece

    def pes(self) -> list[int]:
        return [self.start + i * self.stride for i in range(self.size)]

    def struct(self, pe: int) -> bytes:
        """shmem::Team of a member."""
        index = self.pes().index(pe)
        return struct.pack(
            "<QQQIIII",
            self.signals.offset,
            self.workspace.offset,
            self.workspace.nbytes,
            self.start,
            self.stride,
            self.size,
            index,
        )


class Teams:
    """Makes the ranks' lists, one for each of two blocks, and applies them to the model."""

    def __init__(self, suite: Suite) -> None:
        self.suite, self.size = suite, suite.ranks.size
        self.lists: list[list[list[list[int]]]] = [[[] for _ in range(self.size)] for _ in range(2)]
        self.outs: list[tuple[int, int, int, str]] = []
        self.places = Places()
        self.structs: dict[tuple[int, Team], int] = {}
        self.syncs: dict[Team, int] = {}
        self.working: list[Piece] = []  # what only the library may write

    def team(self, start: int, stride: int, size: int) -> Team:
        signals = self.suite.take(8 * size, 64)
        workspace = self.suite.take(WORKSPACE * size, 64)
        for rank in range(self.size):
            self.suite.start_with(rank, signals, np.zeros(size, np.uint64))
        self.working += [signals, workspace]
        return Team(start, stride, size, signals, workspace)

    def struct(self, pe: int, team: Team) -> int:
        if (pe, team) not in self.structs:
            self.structs[pe, team] = self.suite.to_device(pe, np.frombuffer(team.struct(pe), np.uint8))
        return self.structs[pe, team]

    def add(
        self, team: Team, op: str, name: str = "float", n: int = 0, *, root: int = 0, in_place: bool = False,
        repeats: int = 1, block: int = 0, other: Team | None = None,
    ) -> None:  # fmt: skip
        suite, dtype = self.suite, np.dtype(DTYPES[name])
        moves = op in ("broadcast", "fcollect", "alltoall") or op in REDUCE
        one = n * dtype.itemsize if moves else 0
        parts = {"fcollect": (team.size, 1), "alltoall": (team.size, team.size)}.get(op, (1, 1))
        shift = int(suite.rng.integers(0, 3)) * dtype.itemsize
        dest = suite.take(one * parts[0], 16, True, shift)
        source = dest if in_place else suite.take(one * parts[1], 16, True, shift if n % 2 else 0)
        what = f"{op}<{name}> of {n}, team {team[:3]}, root {root}{', in place' if in_place else ''}"
        for piece in (dest, source):
            self.places.add(piece, what)
        inputs = []
        for pe in team.pes():
            if op in REDUCE:
                suite.start_with(pe, source, self.numbers(op, dtype, n))
            inputs.append(suite.view(pe, source, dtype).copy())
        for index, pe in enumerate(team.pes()):
            out = suite.to_device(pe, np.zeros(5, np.uint64))
            self.outs.append((pe, out, repeats, what))
            there = self.struct(pe, other) if other else suite.address(pe, source) if one else 0
            self.lists[block][pe].append(
                [
                    OPS.index(op), suite.types.index(name), self.struct(pe, team),
                    suite.address(pe, dest) if one else 0, there, n, root, repeats, out,
                ]
            )  # fmt: skip
            if moves:
                suite.view(pe, dest, dtype)[:] = self.result(op, inputs, index, root, n)

    def numbers(self, op: str, dtype: np.dtype, n: int) -> NDArray[Any]:
        if dtype.kind == "f":  # of very different sizes, so that another order of addition gives other bits
            values = self.suite.rng.standard_normal(n) * 2.0 ** self.suite.rng.integers(-6, 6, n)
            return values.astype(dtype)
        return self.suite.rng.integers(0, 256, n * dtype.itemsize, np.uint8).view(dtype)

    @staticmethod
    def result(op: str, inputs: Sequence[NDArray[Any]], index: int, root: int, n: int) -> NDArray[Any]:
        if op == "broadcast":
            return inputs[root]
        if op == "fcollect":
            return np.concatenate(inputs)
        if op == "alltoall":
            return np.concatenate([given[index * n : (index + 1) * n] for given in inputs])
        total = inputs[0].copy()
        with np.errstate(all="ignore"):
            for given in inputs[1:]:
                total = REDUCE[op](total, given)
        return total

    def launch(self, scope: str, only: Sequence[int] | None = None) -> None:
        suite = self.suite
        suite.upload()
        ranks = range(self.size) if only is None else only
        for rank in ranks:
            lists = [self.lists[block][rank] for block in range(2)]
            tables = [suite.table(rank, rows) for rows in lists]
            arguments = suite.ranks.world(rank) + struct.pack(
                "<QQQQII", *tables, len(lists[0]), len(lists[1]), list(SCOPES).index(scope), 0
            )
            suite.launch(rank, "conformance_teams", arguments, blocks=2, warps=2)
        suite.ranks.synchronize(list(ranks))

    def check(self) -> None:
        suite = self.suite
        suite.no_errors()
        for pe, out, repeats, what in self.outs:
            came = int(suite.ranks.read(pe, out, 1, np.uint64)[0])
            assert came == repeats, f"rank {pe}: {came} of {repeats} calls came through: {what}"
        for piece in self.working:
            for rank in range(self.size):
                found = suite.ranks.read(rank, suite.address(rank, piece), piece.nbytes)
                suite.view(rank, piece)[:] = found
        suite.check(self.places)


def reductions(name: str) -> list[str]:
    ops = ["min", "max", "sum", "prod"] if in_table(MINMAX_REDUCE, name) else []
    return ops + (["and", "or", "xor"] if in_table(BITWISE_REDUCE, name) else [])


SHAPES = [(0, 1, 1), (3, 2, 2), (1, 3, 3), (0, 2, 5), (1, 1, 8), (0, 1, 9)]  # start, stride, size


@pytest.mark.timeout(300)
@pytest.mark.parametrize("scope", SCOPES)
def test_every_collective_type_and_team(make_suite: MAKE, scope: str) -> None:
    suite = make_suite(9, "teams", room=4 << 20, timeout_s=60)
    teams = Teams(suite)
    for shape in SHAPES:
        team = teams.team(*shape)
        for name in suite.types:
            per_chunk = WORKSPACE // np.dtype(DTYPES[name]).itemsize
            for n in (0, 1, 2 * team.size + 1, per_chunk * team.size + 3):
                for op in ("broadcast", "fcollect", "alltoall"):
                    teams.add(team, op, name, n, root=n % team.size)
                for number, op in enumerate(reductions(name)):
                    teams.add(team, op, name, n, in_place=(number + n) % 3 == 0)
    teams.launch(scope)
    teams.check()


@pytest.mark.timeout(100)
@pytest.mark.parametrize("scope", SCOPES)
def test_two_blocks_with_teams_that_overlap(make_suite: MAKE, scope: str) -> None:
    """Each block of a rank goes through its list alone; a rank may wait in two teams at a time."""
    suite = make_suite(5, "teams", room=1 << 20, few=True, timeout_s=60)
    teams = Teams(suite)
    shapes = [[(0, 1, 5), (0, 2, 3)], [(1, 1, 3), (0, 4, 2), (0, 1, 4)]]
    for block in range(2):
        for shape in shapes[block]:
            team = teams.team(*shape)
            for n in (5, 61, 300):
                teams.add(team, "barrier", repeats=7, block=block)
                teams.add(team, "sum", "float", n, block=block, repeats=1)
                teams.add(team, "max", "long", n, block=block, in_place=True)
                teams.add(team, "alltoall", "ushort", n, block=block, repeats=9)
                teams.add(team, "broadcast", "schar", n, root=team.size - 1, block=block, repeats=5)
                teams.add(team, "sync", repeats=20, block=block)
                teams.add(team, "fcollect", "float", n, block=block, repeats=3)
    teams.launch(scope)
    teams.check()


@pytest.mark.timeout(60)
def test_numbers_of_members(make_suite: MAKE) -> None:
    suite = make_suite(7, "teams", room=1 << 16, few=True)
    teams = Teams(suite)
    world, odd = teams.team(0, 1, 7), teams.team(1, 2, 3)
    for root in range(7):
        teams.add(world, "numbers", root=root, other=world)
    for root in range(3):
        teams.add(odd, "numbers", root=root, other=world)
    asked = [(pe, out) for pe, out, *_ in teams.outs]
    teams.launch("thread")
    teams.check()
    found = iter([suite.ranks.read(pe, out, 5, np.uint64)[1:].astype(np.int64).tolist() for pe, out in asked])
    for root in range(7):
        for pe in range(7):
            assert next(found) == [pe, 7, root, root]
    for root in range(3):
        for index in range(3):
            assert next(found) == [index, 3, 1 + 2 * root, 1 + 2 * root]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("scope", SCOPES)
def test_a_missing_member_is_named(make_suite: MAKE, scope: str) -> None:
    suite = make_suite(4, "teams", room=1 << 16, few=True, timeout_s=0.05)
    for op in [op for op in OPS if op != "numbers"]:
        suite.reset()
        teams = Teams(suite)
        team = teams.team(1, 1, 3)  # PEs 1, 2, 3; 2 stays away
        teams.add(team, op, "ushort", 40)
        start = time.monotonic()
        teams.launch(scope, only=[1, 3])
        assert time.monotonic() - start < 20
        for rank in (1, 3):
            error = suite.take_error(rank)
            what = WAIT_BARRIER if op in ("sync", "barrier") else WAIT_TEAM
            assert (error.state, error.wait, error.peer) == (2, what, 2), (op, rank, error)
            assert error.expected > error.seen == 0
        assert suite.ranks.error(2).state == 0
