# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Builds the C++ programs of the rdma tests with g++, once per state of the sources:

    fake_library("address"), scenarios("address")   # over the pretended libibverbs
    vm_program()                                    # over real verbs, for the SoftRoCE machine

`python rdma_program.py` builds the last one: the machine itself is too slow for compilers.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
RUNTIME = ROOT / "src/core/runtime"
SOURCES = [
    *(p for p in sorted((ROOT / "src/io/backends/rdma").glob("*.cpp")) if p.stem != "rdma"),
    *sorted((ROOT / "src/transport/verbs").glob("*.cpp")),
    *sorted((ROOT / "src/core/topology").glob("*.cpp")),
    *(RUNTIME / f"{name}.cpp" for name in ("gpu_driver", "cuda_driver", "hip_driver")),
]
SCENARIOS = ("rdma_scenarios", "rdma_endings")
FLAGS = ["-std=c++20", "-O1", "-g1", "-fno-omit-frame-pointer", "-fPIC", "-I", str(ROOT)]
SANITIZE = {
    "thread": ["-fsanitize=thread"],
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"],
    "none": [],
}


def compiler() -> str | None:
    return shutil.which(os.environ.get("CXX", "g++"))


def _run(*command: str | Path) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=400, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stderr}")


def _folder() -> Path:
    parts = ("src/io", "src/core", "src/transport/verbs")
    headers = [*(h for part in parts for h in (ROOT / part).rglob("*.hpp")), *HERE.glob("*.hpp")]
    programs = [HERE / f"{name}.cpp" for name in ("fake_verbs", *SCENARIOS, "rdma_vm_main")]
    key = hashlib.sha256(b"".join(p.read_bytes() for p in [*SOURCES, *programs, *sorted(headers)])).hexdigest()[:16]
    return ROOT / "build" / "io_rdma" / key


def _built(name: str, make: object) -> Path:
    """The file `name`, made in a folder of its own and moved at once: other test processes may build it, too."""
    target = _folder() / name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            made = Path(scratch) / "made"
            make(made)  # type: ignore[operator]
            made.rename(target)
    return target


def _program(mains: tuple[str, ...], sanitizer: str) -> Path:
    def make(made: Path) -> None:
        flags = [*FLAGS, *SANITIZE[sanitizer]]

        def compile_one(source: Path) -> Path:
            target = made.parent / f"{source.parent.name}_{source.stem}.o"
            _run(compiler() or "g++", *flags, "-c", source, "-o", target)
            return target

        with ThreadPoolExecutor(2) as pool:
            objects = list(pool.map(compile_one, [*(HERE / f"{main}.cpp" for main in mains), *SOURCES]))
        extra: list[str | Path] = []
        if mains == SCENARIOS:
            library = fake_library(sanitizer)
            extra = [library, f"-Wl,-rpath,{library.parent}"]
        _run(compiler() or "g++", *flags, *objects, *extra, "-o", made, "-pthread", "-ldl")

    return _built(f"{mains[0]}.{sanitizer}", make)


def fake_library(sanitizer: str) -> Path:
    name = f"libfakeverbs.{sanitizer}.so"
    flags = [*FLAGS, *SANITIZE[sanitizer], "-shared", f"-Wl,-soname,{name}"]
    source = HERE / "fake_verbs.cpp"
    return _built(name, lambda made: _run(compiler() or "g++", *flags, source, "-o", made, "-pthread"))


def scenarios(sanitizer: str) -> Path:
    return _program(SCENARIOS, sanitizer)


def vm_program() -> Path:
    return _program(("rdma_vm_main",), "none")


if __name__ == "__main__":
    print(vm_program())
