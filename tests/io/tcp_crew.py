# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Two engines with the tcp backend in processes of their own, and memories that the test sees as numpy arrays."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
from net_programs import Driven

SECRET = "an example secret of 32 bytes..."


class Memory:
    """A file that a process registers and the test maps."""

    def __init__(self, path: Path, size: int, engine: Engine) -> None:
        self.path, self.size, self.engine = path, size, engine
        with path.open("wb") as file:
            file.truncate(size)
        with path.open("r+b") as file:
            self.map = mmap.mmap(file.fileno(), size)
        self.bytes = np.frombuffer(self.map, dtype=np.uint8)
        self.id, self.key = engine("memory", path, size)


class Engine(Driven):
    def __init__(
        self,
        program: Path,
        key: str,
        folder: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        secret: str = SECRET,
        same_host: bool = True,
        **options: int,
    ) -> None:
        super().__init__([program, key, host, port, secret, int(same_host), *(f"{n}={v}" for n, v in options.items())])
        self.key, self.folder, self.host = key, folder, host
        self.incarnation, self.port = self.hello[0], int(self.hello[1])
        self._lists = 0

    def memory(self, size: int) -> Memory:
        self._lists += 1
        return Memory(self.folder / f"{self.key}-{self.incarnation}-memory{self._lists}", size, self)

    def introduce(self, other: Engine, host: str | None = None, port: int | None = None) -> None:
        self("introduce", other.key, other.incarnation, host or other.host, port or other.port)

    def session(self, local: Memory, remote: Memory, key: str | None = None) -> str:
        owner = remote.engine
        return self("session", local.id, owner.key, owner.incarnation, remote.id, key or remote.key, remote.size)[0]

    def list(self, triples: np.ndarray) -> tuple[Path, int]:
        """A file of (local, remote, bytes)."""
        self._lists += 1
        path = self.folder / f"{self.key}-list{self._lists}"
        np.ascontiguousarray(triples, dtype=np.int64).tofile(path)
        return path, len(triples)

    def go(self, session: str, op: str, triples: np.ndarray, timeout_ms: int = 10000, *notify: str) -> str:
        return self("go", session, op, *self.list(triples), timeout_ms, *notify)[0]

    def wait(self, status: str, timeout_ms: int = 10000) -> tuple[int, int, str]:
        """Code, microseconds since it began, message."""
        code, us, *words = self("wait", status, timeout_ms)
        return int(code), int(us), "\t".join(words)

    def counter(self, name: str) -> int:
        pairs = dict(item.split("=") for item in self("counters")[0].split())
        return int(pairs[name])


def blocks(count: int, size: int, slots: int, seed: int) -> np.ndarray:
    """(local, remote, bytes) of `count` blocks at random places, no two the same, of pools of `slots` blocks."""
    random = np.random.default_rng(seed)
    local = random.permutation(slots)[:count] * size
    remote = random.permutation(slots)[:count] * size
    return np.stack([local, remote, np.full(count, size)], axis=1)


def copied(source: np.ndarray, target: np.ndarray, triples: np.ndarray, op: str) -> np.ndarray:
    """What `target` must be after the transfer from `source` (local for a write, remote for a read)."""
    expected = target.copy()
    for local, remote, size in triples:
        if op == "write":
            expected[remote : remote + size] = source[local : local + size]
        else:
            expected[local : local + size] = source[remote : remote + size]
    return expected
