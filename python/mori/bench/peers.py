# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Other libraries on the same data in the same run: an all-to-all of rows, through their public interfaces.

They are measured generously. Their rows are packed by destination beforehand and left packed afterwards,
every rank knows all counts, ids, weights and sources are not sent, and their combine moves rows without
adding them. So their numbers are lower bounds of what a dispatch built on them would take. What arrives is
compared bit for bit.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from .clock import repeated, steady
from .settings import EpSettings
from .statistics import Spans
from .verify import Mismatch, packed
from .workload import Workload

__all__ = ["check_bytes", "mpi_peer", "split_sizes", "torch_peer"]


def split_sizes(settings: EpSettings, workload: Workload, rank: int, *, returning: bool) -> tuple[list[int], list[int]]:
    """Bytes that `rank` sends to, and receives from, each rank."""
    rows = workload.rows()
    out = rows[rank] * settings.wire.row_bytes(settings.hidden)
    arriving = rows[:, rank] * settings.wire.row_bytes(settings.hidden)
    if returning:
        width = settings.combine_format.row_bytes(settings.hidden)
        return (rows[:, rank] * width).tolist(), (rows[rank] * width).tolist()
    return out.tolist(), arriving.tolist()


def check_bytes(impl: str, op: str, rank: int, got: Any, want: Any) -> None:
    different = np.flatnonzero(got != want)
    if len(different):
        at = int(different[0])
        raise Mismatch(f"{impl} {op} on rank {rank}: byte {at} is {got[at]:#04x}, expected {want[at]:#04x}")


def torch_peer(
    backend: str, ctx: Any, settings: EpSettings, workload: Workload, extra: Any, device: Any, clock: Any
) -> tuple[dict[str, Spans], str]:
    """Spans of gloo's or NCCL's all_to_all_single, or a note that says why there are none. Collective."""
    import torch
    import torch.distributed as dist

    if backend == "gloo" and device.type != "cpu":
        return {}, "gloo skipped: it exchanges CPU memory; give --device cpu"
    if extra.threads:
        return (
            {},
            f"{backend} skipped: it needs a process{' and a GPU' if backend == 'nccl' else ''} per rank",
        )
    if not getattr(dist, f"is_{backend}_available")():
        return {}, f"{backend} skipped: this torch was built without it"
    limit = timedelta(seconds=settings.timeout_s)
    group = None
    started = not dist.is_initialized()
    if started:
        place = {"init_method": f"file://{extra.store}", "rank": ctx.rank, "world_size": ctx.world_size}
        dist.init_process_group(backend, timeout=limit, **place)
    else:
        group = dist.new_group(backend=backend, timeout=limit)
    try:
        clock.drop()
        steps = {}
        for op, returning in (("dispatch", False), ("combine", True)):
            send, want = packed(settings, workload, ctx.rank, returning=returning)
            out_sizes, in_sizes = split_sizes(settings, workload, ctx.rank, returning=returning)
            source, target = (
                torch.from_numpy(send).to(device),
                torch.zeros(len(want), dtype=torch.uint8, device=device),
            )

            def exchange(
                target: Any = target, source: Any = source, into: Any = in_sizes, out: Any = out_sizes
            ) -> None:
                dist.all_to_all_single(target, source, into, out, group=group)

            steps[op] = exchange
            exchange()
            check_bytes(backend, op, ctx.rank, target.cpu().numpy(), want)
        for iteration in range(-settings.warmup, settings.iters):
            if iteration == 0:
                clock.drop(steps=3 * settings.iters)
            for op, exchange in steps.items():
                clock.time(op, exchange)
            clock.time("round_trip", lambda: [exchange() for exchange in steps.values()])
        found: dict[str, Spans] = clock.spans()
        if device.type == "cpu":  # on GPUs MoRI's steady rows are graphs
            found |= steady(clock, {op: repeated(exchange) for op, exchange in steps.items()}, settings.iters)[0]
        ctx.barrier()
        return found, ""
    finally:
        if started:
            dist.destroy_process_group()


def mpi_peer(
    settings: Any, timeout_s: float, module: str = "mori.bench.mpi_main"
) -> tuple[list[dict[str, Spans]], str]:
    """Every rank's spans of `module`, run under mpirun, or a note that says why there are none. `settings` has `ranks`,
    and is what the module reads."""
    mpirun = shutil.which("mpirun")
    if mpirun is None:
        return [], "mpi skipped: no mpirun found (Debian, Ubuntu: apt install openmpi-bin libopenmpi-dev)"
    probe = [sys.executable, "-c", "import importlib.util as u, sys; sys.exit(u.find_spec('mpi4py') is None)"]
    if subprocess.run(probe, check=False, capture_output=True).returncode:
        return [], "mpi skipped: mpi4py is not installed (pip install mpi4py)"
    version = subprocess.run([mpirun, "--version"], check=False, capture_output=True, text=True).stdout
    flags = []
    if "Open MPI" in version or "open-mpi" in version:
        flags = [
            "--oversubscribe",
            "--bind-to",
            "none",
            *(["--allow-run-as-root"] if os.geteuid() == 0 else []),
        ]
    with tempfile.TemporaryDirectory(prefix="mori-bench-") as folder:
        question, answer = Path(folder, "settings.json"), Path(folder, "spans.json")
        question.write_bytes(msgspec.json.encode(settings))
        command = [mpirun, *flags, "-n", str(settings.ranks), sys.executable, "-m", module]
        code, text = _run([*command, str(question), str(answer)], timeout_s)
        if code is None:
            return [], f"mpi gave no result within {timeout_s:g} s"
        lines = text.strip().splitlines() or ["no message"]
        if "Mismatch" in text:
            raise Mismatch(next(line for line in lines if "Mismatch" in line))
        if code or not answer.exists():
            return [], f"mpi failed with exit code {code}: {' / '.join(lines[-3:])}"
        ranks = json.loads(answer.read_text())
    return [{op: Spans(**spans) for op, spans in rank.items()} for rank in ranks], ""


def _run(command: list[str], timeout_s: float) -> tuple[int | None, str]:
    """Exit code and output; no code if it had to be stopped, politely, so that mpirun ends its ranks."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            code: int | None = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(5)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        output.seek(0)
        return code, output.read().decode(errors="replace")
