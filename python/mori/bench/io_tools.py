# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Programs that measure a device alone, for `mori bench io`: perftest for RDMA and fio for files. Both move blocks of
the size that is measured, as deep as the batch, and are the limit of those backends."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from .io_settings import IoCase, IoSettings

__all__ = ["fio_us", "perftest_us", "tool_rows"]

_PORT = 18519
_RUN_S = 30.0


def tool_rows(settings: IoSettings, notes: list[str]) -> dict[tuple[str, int], float]:
    """(tool, case) -> microseconds that it needs for the bytes of a transfer."""
    found: dict[tuple[str, int], float] = {}
    tools = {"perftest": (perftest_us, "rdma"), "fio": (fio_us, "file")}
    for name, (measure, backend) in tools.items():
        if name not in settings.peers and settings.backend != backend:
            continue
        if settings.backend != backend:
            notes.append(f"{name} skipped: it measures backend {backend}")
            continue
        for index, case in enumerate(settings.cases()):
            try:
                found[name, index] = measure(settings, case)
            except (OSError, RuntimeError, subprocess.SubprocessError, ValueError) as error:
                notes.append(f"{name} skipped: {error}")
                break
    return found


def _require(program: str, package: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise RuntimeError(f"no {program} found (Debian, Ubuntu: apt install {package})")
    return path


def perftest_us(settings: IoSettings, case: IoCase) -> float:
    """ib_write_bw or ib_read_bw between two processes of this machine, or to the other one by hand."""
    program = _require(f"ib_{case.op}_bw", "perftest")
    if settings.host:
        raise RuntimeError("between two machines run perftest by hand")
    devices = sorted(os.listdir("/sys/class/infiniband")) if os.path.isdir("/sys/class/infiniband") else []
    if not devices:
        raise RuntimeError("this machine has no RDMA device")
    count = max(5, min(2000, (256 << 20) // case.block_bytes))
    command = [program, "-d", devices[0], "-s", str(case.block_bytes), "-n", str(count), "-p", str(_PORT), "-F"]
    if case.op == "write":
        command += ["-t", str(min(128, count))]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            for attempt in range(20):
                done = subprocess.run(
                    [*command, "127.0.0.1"], capture_output=True, text=True, timeout=_RUN_S, check=False
                )
                if done.returncode == 0 or attempt == 19:
                    break
                if server.poll() is not None:
                    raise RuntimeError(f"{program} does not start on {devices[0]}")
        finally:
            server.terminate()
    return case.bytes / _perftest_rate(done.stdout)


def _perftest_rate(text: str) -> float:
    """Bytes per microsecond: the average column, in MiB/s, of the line that begins with the size."""
    for line in text.splitlines():
        match = re.match(r"\s*\d+\s+\d+\s+[\d.]+\s+([\d.]+)", line)
        if match:
            return float(match[1]) * (1 << 20) / 1e6
    raise RuntimeError("perftest printed no result")


def fio_us(settings: IoSettings, case: IoCase) -> float:
    """Random blocks of a file of the same size in the same folder, as deep as the batch up to 128, past the cache where
    the file system allows that."""
    program = _require("fio", "fio")
    size = max(case.pool_bytes, case.block_bytes)
    with tempfile.TemporaryDirectory(prefix="mori-bench-", dir=settings.folder or None) as folder:
        path = Path(folder, "file")
        with path.open("wb") as file:  # written in full: holes would be read from no disk
            for at in range(0, size, 1 << 20):
                file.write(os.urandom(min(1 << 20, size - at)))
            file.flush()
            os.fsync(file.fileno())
        for direct in (1, 0):
            command = [
                program,
                "--name=job",
                f"--filename={path}",
                f"--rw=rand{case.op}",
                f"--bs={case.block_bytes}",
                f"--size={size}",
                f"--iodepth={depth_of(case)}",
                "--ioengine=io_uring",
                f"--direct={direct}",
                *("--time_based", "--runtime=1", "--output-format=json", "--norandommap"),
            ]
            done = subprocess.run(command, capture_output=True, text=True, timeout=_RUN_S, check=False)
            if done.returncode == 0:
                report = json.loads(done.stdout[done.stdout.index("{") :])
                rate = float(report["jobs"][0][case.op]["bw_bytes"])
                if rate:
                    return case.bytes / rate * 1e6
        raise RuntimeError(f"fio failed: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")


def depth_of(case: IoCase) -> int:
    """Requests in flight to a file, for fio and for MoRI alike."""
    return min(128, case.batch)


def spread(us: float) -> list[int]:
    """A tool gives one number: as samples for a row."""
    return np.full(1, us * 1e3).astype(np.int64).tolist()
