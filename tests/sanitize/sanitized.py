# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Compiles the CPU device, kernels and a main program under a sanitizer, without CMake.

    Sanitized("thread", folder).program(main, extra)   -> path of an executable
    Sanitized("thread", folder).kernels(64, sources)   -> folder with cpu_w64.so
    run(program, kernels, lanes=64, ranks=2, ...)      -> Outcome: status, races, output

Under ThreadSanitizer every lane is a thread of its own (MORI_TSAN_FIBERS). The files in `UNSEEN` switch the
fibers and are compiled without the sanitizer, since their bookkeeping is shared by all lanes of a thread;
they are linked first, so that their copies of shared templates are the ones used.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from fixed_addresses import FIXED_ADDRESSES

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = ROOT / "src/core/runtime"
UNSEEN = ["fiber", "cpu_scheduler", "cpu_job"]
SEEN = ["cpu_code", "cpu_device", "cpu_memory", "cpu_pool", "cpu_stream"]
FLAGS = ["-std=c++20", "-O1", "-g1", "-fno-omit-frame-pointer", "-fPIC", "-I", str(ROOT)]
SANITIZE = {
    "thread": ["-fsanitize=thread"],
    "address": ["-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
    "none": [],
}


def compiler() -> str | None:
    """The C++ compiler, or None where there is none that links the sanitizers."""
    return shutil.which(os.environ.get("CXX", "g++"))


class Sanitized:
    """Objects of one sanitizer, kept in `folder` and compiled once."""

    def __init__(self, sanitizer: str, folder: Path) -> None:
        self.sanitizer = sanitizer
        self.folder = folder / sanitizer
        self.folder.mkdir(parents=True, exist_ok=True)

    def program(self, main: Path, extra: Sequence[Path] = (), device: bool = True) -> Path:
        """The executable of a main program with the CPU device, if it wants one, and `extra` sources."""
        objects = self._objects([RUNTIME / f"{name}.cpp" for name in UNSEEN if device], seen=False)
        objects += self._objects([*(RUNTIME / f"{name}.cpp" for name in SEEN if device), *extra, main])
        executable = self.folder / main.stem
        self._run([*SANITIZE[self.sanitizer], *map(str, objects), "-o", str(executable), "-pthread", "-ldl"])
        return executable

    def kernels(self, lanes: int, sources: Sequence[Path], flags: Sequence[str] = ()) -> Path:
        """A folder with the code object of the given kernels for warps of `lanes`."""
        flags = [*flags, f"-DMORI_CPU_WARP={lanes}"]
        objects = self._objects([*sources, ROOT / "src/core/device/cpu_object.cpp"], flags)
        key = hashlib.sha256(" ".join(map(str, objects)).encode()).hexdigest()[:12]
        folder = self.folder / f"kernels-{key}"
        folder.mkdir(exist_ok=True)
        library = str(folder / f"cpu_w{lanes}.so")
        self._run([*SANITIZE[self.sanitizer], "-shared", *map(str, objects), "-o", library])
        return folder

    def _objects(self, sources: Sequence[Path], extra: Sequence[str] = (), seen: bool = True) -> list[Path]:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(lambda source: self._object(source, extra, seen), sources))

    def _object(self, source: Path, extra: Sequence[str] = (), seen: bool = True) -> Path:
        flags = [*extra, *FLAGS]  # an -I of `extra` comes before the repository's
        if self.sanitizer != "thread" or seen:
            flags += SANITIZE[self.sanitizer]
        else:
            flags += ["-DMORI_TSAN_FIBERS"]
        key = hashlib.sha256(" ".join([str(source), *flags]).encode()).hexdigest()[:12]
        target = self.folder / f"{source.stem}-{key}.o"
        if not target.exists():
            self._run([*flags, "-c", str(source), "-o", str(target)])
        return target

    @staticmethod
    def _run(arguments: Sequence[str]) -> None:
        command = [compiler() or "g++", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")


class Outcome(NamedTuple):
    status: int
    races: int
    output: str


def run(
    program: Path,
    kernels: Path,
    *,
    lanes: int,
    ranks: int = 2,
    threads: int = 1,
    blocks: int = 2,
    warps: int = 2,
    rounds: int = 2,
    timeout: float = 100,
) -> Outcome:
    """Runs a program of ranks.hpp and counts what ThreadSanitizer reported."""
    numbers = [lanes, ranks, threads, blocks, warps, rounds]
    command = [str(program), str(kernels), *map(str, numbers)]
    done = subprocess.run([*FIXED_ADDRESSES, *command], capture_output=True, text=True, timeout=timeout, check=False)
    output = done.stdout + done.stderr
    return Outcome(done.returncode, output.count("WARNING: ThreadSanitizer: data race"), output)


def run_until_raced(program: Path, kernels: Path, *, lanes: int, attempts: int = 8) -> Outcome:
    """The first of several runs that reports a race, or the last. ThreadSanitizer compares the accesses of one
    run as they happened to be ordered; on a busy machine threads may take turns so that a missing order is hidden."""
    for attempt in range(attempts):
        outcome = run(program, kernels, lanes=lanes, rounds=2 + attempt)
        if outcome.races:
            break
    return outcome


def mutated(folder: Path, file: str, before: str, after: str) -> Path:
    """A copy of the repository's headers and kernels in which one place of one file is changed."""
    shutil.copytree(ROOT / "src", folder / "src", dirs_exist_ok=True)
    text = (folder / file).read_text()
    if text.count(before) != 1:
        raise ValueError(f"{file} has {text.count(before)} places that read {before!r}; expected one")
    (folder / file).write_text(text.replace(before, after))
    return folder
