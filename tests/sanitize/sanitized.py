# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Compiles the CPU device, kernels and a main program under a sanitizer, without CMake.

    Sanitized("thread", folder).program("exchange_main", mains=[...])  -> path of an executable
    Sanitized("thread", folder).kernels(64, [...kernel sources...])    -> folder with cpu_w64.so

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
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = ROOT / "src/core/runtime"
UNSEEN = ["fiber", "cpu_scheduler", "cpu_job"]
SEEN = ["cpu_code", "cpu_device", "cpu_memory", "cpu_pool", "cpu_stream"]
FLAGS = ["-std=c++20", "-O1", "-g1", "-fno-omit-frame-pointer", "-fPIC", "-I", str(ROOT)]
SANITIZE = {
    "thread": ["-fsanitize=thread"],
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
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

    def program(self, main: Path, extra: Sequence[Path] = ()) -> Path:
        """The executable of a main program with the CPU device and `extra` sources."""
        objects = [self._object(RUNTIME / f"{name}.cpp", seen=False) for name in UNSEEN]
        objects += [self._object(RUNTIME / f"{name}.cpp") for name in SEEN]
        objects += [self._object(source) for source in (*extra, main)]
        executable = self.folder / main.stem
        self._run([*SANITIZE[self.sanitizer], *map(str, objects), "-o", str(executable), "-pthread", "-ldl"])
        return executable

    def kernels(self, lanes: int, sources: Sequence[Path], defines: Sequence[str] = ()) -> Path:
        """A folder with the code object of the given kernels for warps of `lanes`."""
        defines = [*(f"-D{define}" for define in defines), f"-DMORI_CPU_WARP={lanes}"]
        objects = [self._object(s, defines) for s in (*sources, ROOT / "src/core/device/cpu_object.cpp")]
        key = hashlib.sha256(" ".join(map(str, objects)).encode()).hexdigest()[:12]
        folder = self.folder / f"kernels-{key}"
        folder.mkdir(exist_ok=True)
        library = str(folder / f"cpu_w{lanes}.so")
        self._run([*SANITIZE[self.sanitizer], "-shared", *map(str, objects), "-o", library])
        return folder

    def _object(self, source: Path, defines: Sequence[str] = (), seen: bool = True) -> Path:
        flags = [*FLAGS, *defines]
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
