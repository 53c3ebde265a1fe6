# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Compiles p2p_main.cpp with the p2p backend and the device runtime, without CMake:
`python p2p_program.py FOLDER [FLAG...]` makes FOLDER/p2p_main, and FOLDER/io_copy.fatbin where there is nvcc."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
P2P = ROOT / "src/io/backends/p2p"


def compile_program(folder: Path, *flags: str) -> Path:
    compiler = shutil.which(os.environ.get("CXX", "g++")) or "g++"
    sources = [path for path in sorted((ROOT / "src/core/runtime").glob("*.cpp")) if path.stem != "cpu_object"]
    sources += [
        ROOT / "src/core/memory/peer_memory.cpp",
        ROOT / "src/io/backends/backend_options.cpp",
        *sorted(P2P.glob("*.cpp")),
        Path(__file__).with_name("p2p_main.cpp"),
    ]
    sources = [source for source in sources if not source.name.endswith(".kernel.cpp")]
    common = ["-std=c++20", "-O1", "-g1", "-I", str(ROOT), "-fPIC", *flags]

    def one(source: Path) -> str:
        target = folder / f"{source.stem}.o"
        subprocess.run([compiler, *common, "-c", str(source), "-o", str(target)], check=True, timeout=300)
        return str(target)

    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        objects = list(pool.map(one, sources))
    program = folder / "p2p_main"
    subprocess.run(
        [compiler, *flags, *objects, "-o", str(program), "-pthread", "-ldl", "-lrt"], check=True, timeout=120
    )
    return program


def compile_kernel(folder: Path, nvcc: str) -> None:
    flags = ["-x", "cu", "-std=c++20", "-O3", "-fmad=false", f"-I{ROOT}", "-fatbin"]
    code = ["-gencode", "arch=compute_90,code=sm_90", "-gencode", "arch=compute_90,code=compute_90"]
    source = P2P / "io_copy.kernel.cpp"
    subprocess.run([nvcc, *flags, *code, str(source), "-o", str(folder / "io_copy.fatbin")], check=True, timeout=300)


if __name__ == "__main__":
    where = Path(sys.argv[1])
    where.mkdir(parents=True, exist_ok=True)
    if found := shutil.which("nvcc"):
        compile_kernel(where, found)
    print(compile_program(where, *sys.argv[2:]))
