# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Compiled kernels by content, in a folder that all ranks of a user share.

    <folder>/<digest of source, compiler, flags>/<digest of all files read>.{so,fatbin,hsaco,json}

The json is written last and tells the digest of the code object and of every file that the compiler read; an
entry counts only if all of them are so still. One process compiles while the others wait at a lock; where the
file system has none, they compile it several times, and the last rename wins with the same content.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import stat
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import ConfigError

__all__ = ["Compiled", "Entry", "digest"]


@dataclass(frozen=True)
class Compiled:
    """A code object in the cache."""

    path: Path
    kernels: tuple[str, ...]  # empty where the compiler does not tell
    fresh: bool  # compiled by this call


def digest(*parts: bytes | str) -> str:
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "little"))
        total.update(data)
    return total.hexdigest()


class Entry:
    """All code objects that one command line made of one source, as the files it includes changed."""

    def __init__(self, root: Path, key: str, ending: str) -> None:
        self._folder, self._ending = root / key[:32], ending
        _make_private(root, self._folder)

    def get(self, make: Callable[[Path, Path], Sequence[str]], timeout_s: float) -> Compiled:
        """The valid code object, or that of make(result, inputs), which writes both files and names the kernels."""
        found = self._find()
        if found is not None:
            return found
        with _locked(self._folder / "lock", timeout_s):
            return self._find() or self._make(make)

    def _find(self) -> Compiled | None:
        for record in self._folder.glob("*.json"):
            try:
                data = json.loads(record.read_text())
                path = record.with_suffix(self._ending)
                if digest(path.read_bytes()) != data["object"]:
                    continue
                if all(digest(Path(name).read_bytes()) == value for name, value in data["inputs"].items()):
                    return Compiled(path, tuple(data["kernels"]), fresh=False)
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue  # damaged, or a file is gone: compiled again
        return None

    def _make(self, make: Callable[[Path, Path], Sequence[str]]) -> Compiled:
        with tempfile.TemporaryDirectory(dir=self._folder) as scratch:
            result, listed = Path(scratch) / f"object{self._ending}", Path(scratch) / "inputs.d"
            started = time.time_ns()
            kernels = make(result, listed)
            inputs = _inputs(listed.read_text())
            digests = {str(path): digest(path.read_bytes()) for path in inputs}
            # a file that changed meanwhile may not be the one that was compiled
            steady = all(path.stat().st_mtime_ns <= started for path in inputs)
            name = digest(json.dumps(digests, sort_keys=True))[:32] if steady else uuid.uuid4().hex
            data = {"object": digest(result.read_bytes()), "inputs": digests, "kernels": list(kernels)}
            path = self._folder / f"{name}{self._ending}"
            result.replace(path)
            if steady:
                record = Path(scratch) / "record.json"
                record.write_text(json.dumps(data))
                record.replace(path.with_suffix(".json"))
        return Compiled(path, tuple(kernels), fresh=True)


def _make_private(folder: Path, entry: Path) -> None:
    """Code is loaded from here: nobody else may write it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        entry.mkdir(mode=0o700, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise ConfigError(f"the cache of kernels cannot be made: {error}; MORI_KERNEL_CACHE names another") from None
    if status.st_uid not in (os.geteuid(), 0) or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(
            f"the cache of kernels {folder} (owner {status.st_uid}, mode {stat.S_IMODE(status.st_mode):o}) can be "
            "written by others: `chmod go-w` it, or name another in MORI_KERNEL_CACHE"
        )


@contextlib.contextmanager
def _locked(path: Path, timeout_s: float) -> Iterator[None]:
    """Waits for the lock at most so long, and goes on without it then: renames keep entries whole."""
    with open(path, "a") as file:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.02)
            except OSError:  # a file system without locks
                break
        yield


def _inputs(rule: str) -> list[Path]:
    """The files of a makefile's rule `object: FILE FILE...`."""
    text = rule.partition(":")[2].replace("\\\n", " ").replace("\\ ", "\0")
    return sorted({Path(word.replace("\0", " ").replace("$$", "$")).absolute() for word in text.split()})
