# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Random programs (program.h) on Debian's Open MPI as an OpenSHMEM library and on this library's device functions leave
the same bytes in every PE's memory.

Open MPI's runs on one host without InfiniBand, as root too, with --allow-run-as-root and --oversubscribe. In 4.1.4 its
32-bit compare_swap, its fetching bitwise operations and its shmem_finalize() are broken, and not used (oshmem_main.c);
it exits with 1 for the lack of a finalize, so what tells that a run is whole is the length of what it wrote.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from compile_quickly import quick
from numpy.typing import NDArray
from shmem_ranks import Ranks

import mori

HERE = Path(__file__).parent
FIRST_SEED, SEEDS = 1, 12
TEAM_BYTES = 4096
MAKE = Callable[..., Ranks]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for tool in ("oshcc", "oshrun"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} (Debian: openmpi-bin, libopenmpi-dev)")
    target = tmp_path_factory.mktemp("oshmem") / "oracle"
    command = ["oshcc", "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(target), str(HERE / "oshmem_main.c")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture(scope="session")
def oracle(program: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, int, int], NDArray[np.uint8]]:
    """oracle(pes, first seed, seeds): uint8[pes][seeds][bytes], once for each pair."""
    known: dict[tuple[int, int, int], NDArray[np.uint8]] = {}

    def run(pes: int, first: int, seeds: int) -> NDArray[np.uint8]:
        if (pes, first, seeds) not in known:
            folder = tmp_path_factory.mktemp(f"pes{pes}")
            options = ["--allow-run-as-root", "--oversubscribe", "-quiet", "-np", str(pes)]
            command = ["oshrun", *options, str(program), str(folder), str(first), str(seeds)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
            memory = [np.fromfile(folder / f"pe{pe}", np.uint8) for pe in range(pes)]
            assert len({m.size for m in memory}) == 1 and memory[0].size % seeds == 0, done.stderr
            known[pes, first, seeds] = np.stack(memory).reshape(pes, seeds, -1)
            assert known[pes, first, seeds].any(axis=2).all(), done.stderr
        return known[pes, first, seeds]

    return run


def sets_of(n: int) -> list[tuple[int, int, int]]:
    """start, stride, size, as in oshmem_main.c."""
    return [(0, 1, n), (0, 2, 2 if n > 2 else 1), (1, 1, n - 1)]


class Programs:
    def __init__(self, ranks: Ranks, flags: tuple[str, ...] = ()) -> None:
        self.ranks = ranks
        file = HERE / "mori_program.cpp"
        self.modules = [
            mori.compile_kernel(file, device=device, flags=(*quick(device), *flags)) for device in ranks.devices
        ]
        self.bytes = self._size()
        self.signals = -(-self.bytes // 64) * 64
        self.teams = [self._teams(rank) for rank in range(ranks.size)]

    def _arguments(self, rank: int, memory: int, teams: list[int], seed: int, scope: int) -> bytes:
        return self.ranks.world(rank) + struct.pack("<QQQQQII", memory, *teams, seed, scope, 0)

    def _size(self) -> int:
        kernel = self.modules[0].kernel("oracle_bytes")
        kernel.launch(
            self._arguments(0, self.ranks.out[0], [0] * 3, 0, 0), shared_bytes=16, stream=self.ranks.streams[0]
        )
        self.ranks.synchronize([0])
        return int(self.ranks.read(0, self.ranks.out[0], 1, np.uint64)[0])

    def _teams(self, rank: int) -> list[int]:
        """Addresses of the Teams, of each set whose member the rank is; signals and workspaces lie behind."""
        addresses = []
        for number, (start, stride, size) in enumerate(sets_of(self.ranks.size)):
            index, rest = divmod(rank - start, stride)
            at = self.ranks.source[rank] + 64 * number
            signals = self.signals + number * TEAM_BYTES
            member = rest == 0 and 0 <= index < size
            fields = (signals, signals + 256, 64 * size, start, stride, size, index if member else 0)
            self.ranks.write(rank, at, np.frombuffer(struct.pack("<QQQIIII", *fields), np.uint8))
            addresses.append(at if member else 0)
        return addresses

    def run(self, seed: int, scope: int) -> NDArray[np.uint8]:
        """The memory of all ranks after the program of a seed."""
        ranks = self.ranks
        for rank in range(ranks.size):
            ranks.fill(rank, 0)
        for rank in range(ranks.size):
            arguments = self._arguments(rank, ranks.address(rank), self.teams[rank], seed, scope)
            kernel = self.modules[rank].kernel("oracle_run")
            kernel.launch(arguments, warps=2, shared_bytes=16, stream=ranks.streams[rank])
        ranks.synchronize()
        for rank in range(ranks.size):
            assert ranks.error(rank).state == 0, (rank, ranks.error(rank))
        return np.stack([ranks.heap(rank, self.bytes) for rank in range(ranks.size)])


@pytest.mark.timeout(120)
@pytest.mark.parametrize("pes", [2, 3, 4])
def test_the_same_bytes_as_an_openshmem_library(
    oracle: Callable[[int, int, int], NDArray[np.uint8]], make_ranks: MAKE, pes: int
) -> None:
    expected = oracle(pes, FIRST_SEED, SEEDS)
    ranks = make_ranks(pes, room=1 << 16)
    programs = Programs(ranks)
    assert programs.bytes == expected.shape[2]
    for k in range(SEEDS):
        found = programs.run(FIRST_SEED + k, k % 3)
        different = np.argwhere(found != expected[:, k])
        assert different.size == 0, f"seed {FIRST_SEED + k}: PE {different[0][0]} differs at byte {different[0][1]}"


@pytest.mark.long
@pytest.mark.timeout(600)
def test_many_programs(oracle: Callable[[int, int, int], NDArray[np.uint8]], make_ranks: MAKE) -> None:
    expected = oracle(4, 1000, 400)
    programs = Programs(make_ranks(4, room=1 << 16))
    for k in range(400):
        found = programs.run(1000 + k, k % 3)
        different = np.argwhere(found != expected[:, k])
        assert different.size == 0, f"seed {1000 + k}: PE {different[0][0]} differs at byte {different[0][1]}"
