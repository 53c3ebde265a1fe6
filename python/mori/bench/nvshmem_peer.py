# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""NVSHMEM beside MoRI: data/shmem/nvshmem_peer.cu is compiled against the installed wheel (nvidia-nvshmem-cu12 or
-cu13, which torch for CUDA brings) and runs the same cases as two processes, a GPU each.

NVLink multicast is off for it, as everywhere here: NVSHMEM_DISABLE_NVLS.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .. import config
from ..errors import ConfigError, MoriError
from .shmem_kernels import SOURCES
from .shmem_settings import ShmemCase, ShmemSettings
from .verify import Mismatch

__all__ = ["build_command", "find", "parse", "run"]

Found = dict[int, NDArray[np.float64]]
_RANKS = 2


def find() -> Path | None:
    """The folder of the wheel, with include/ and lib/."""
    spec = importlib.util.find_spec("nvidia")
    for place in spec.submodule_search_locations or [] if spec else []:
        folder = Path(place) / "nvshmem"
        if (folder / "include" / "nvshmem.h").is_file():
            return folder
    return None


def build_command(nvcc: str, folder: Path, arch: str, output: Path) -> list[str]:
    host = next(iter(sorted((folder / "lib").glob("libnvshmem_host.so*"))), None)
    if host is None:
        raise ConfigError(f"{folder}: there is no lib/libnvshmem_host.so")
    return [
        nvcc, "-std=c++17", "-O3", "-rdc=true", "-gencode", f"arch=compute_{arch},code=sm_{arch}",
        f"-I{folder / 'include'}", str(SOURCES / "nvshmem_peer.cu"), "-o", str(output),
        f"-L{folder / 'lib'}", "-lnvshmem_device", f"-l:{host.name}", "-split-compile", "0",
        "-Xlinker", f"-rpath={folder / 'lib'}",
    ]  # fmt: skip


def run(settings: ShmemSettings, gpus: int, limit_s: float) -> tuple[Found, str]:
    """Nanoseconds of each case's samples, by its number, and a note if there are none. Raises Mismatch."""
    folder, nvcc = find(), _nvcc()
    if gpus < _RANKS:
        return {}, f"nvshmem skipped: it needs {_RANKS} GPUs, here is {gpus}"
    if folder is None:
        return {}, "nvshmem skipped: pip install nvidia-nvshmem-cu13"
    if nvcc is None:
        return {}, "nvshmem skipped: there is no nvcc to compile its program with"
    try:
        with tempfile.TemporaryDirectory(prefix="mori-bench-") as place:
            return _run(settings, folder, nvcc, Path(place), limit_s)
    except (MoriError, OSError, subprocess.SubprocessError) as error:
        if isinstance(error, Mismatch):
            raise
        return {}, f"nvshmem failed: {str(error)[-600:]}"


def _run(settings: ShmemSettings, folder: Path, nvcc: str, place: Path, limit_s: float) -> tuple[Found, str]:
    import torch

    note = ""
    deadline = time.monotonic() + limit_s
    program = place / "nvshmem_peer"
    major, minor = torch.cuda.get_device_capability(0)
    command = build_command(nvcc, folder, f"{major}{minor}", program)
    built = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    if built.returncode != 0:
        raise MoriError(f"nvcc: {(built.stderr or built.stdout)[-500:]}")
    cases = settings.cases()
    room = max(16, *(case.bytes * _RANKS for case in cases))
    text = lines(cases, settings.iters)
    environment = config.environment() | {
        "NVSHMEM_DISABLE_NVLS": "1",
        "NVSHMEM_REMOTE_TRANSPORT": "none",
        "NVSHMEM_BOOTSTRAP_UID_SOCK_IFNAME": "lo",
        "NVSHMEM_SYMMETRIC_SIZE": str(2 * room + (64 << 20)),
    }
    outputs = [place / f"out.{rank}" for rank in range(_RANKS)]
    processes = []
    try:
        for rank, output in enumerate(outputs):
            arguments = [str(program), str(rank), str(_RANKS), str(place / "id"), str(room)]
            with output.open("wb") as out:
                process = subprocess.Popen(
                    arguments, stdin=subprocess.PIPE, stdout=out, stderr=subprocess.STDOUT, env=environment
                )
            processes.append(process)
            if process.stdin is not None:
                process.stdin.write(text.encode())
                process.stdin.close()
        for rank, process in enumerate(processes):
            try:
                code = process.wait(timeout=max(1.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:  # what it has measured until then counts
                code, note = 0, f"nvshmem: stopped after {limit_s:.0f} s, cases are missing"
            said = outputs[rank].read_text(errors="replace")
            parse(said)  # raises what is wrong
            if code != 0:
                raise MoriError(f"process {rank} ended with {code}: {said[-400:]}")
    finally:
        for process in processes:
            process.kill()
            process.wait()
    first, second = (parse(output.read_text(errors="replace")) for output in outputs)
    for index, ns in second.items():
        collective = cases[index].kind in ("meeting", "collective")
        first[index] = np.maximum(first[index], ns) if collective and index in first else first.get(index, ns)
    return first, note


def lines(cases: Sequence[ShmemCase], iters: int) -> str:
    """What the program is told. A payload beside its signal is not a form that NVSHMEM has."""
    return "".join(
        f"{index} {case.op} {case.scope} {case.bytes} {case.blocks} {case.warps} {case.rounds} {iters}\n"
        for index, case in enumerate(cases)
        if case.op != "put_signal_paired"
    )


def parse(text: str) -> Found:
    """What the program has said; Mismatch if it found wrong bytes."""
    found: Found = {}
    for line in text.splitlines():
        words = line.split()
        if words[:1] == ["wrong"]:
            raise Mismatch(f"nvshmem: {line}")
        if words and words[0].isdigit():
            found[int(words[0])] = np.array([float(word) for word in words[1:]])
    return found


def _nvcc() -> str | None:
    return shutil.which("nvcc") or next((p for p in ("/usr/local/cuda/bin/nvcc",) if Path(p).is_file()), None)
