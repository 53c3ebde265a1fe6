# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""One rank of the MPI peer, started by mpirun: `python -m mori.bench.mpi_main SETTINGS.json SPANS.json`.

Recomputes the run's data from its settings, exchanges the packed rows with Alltoallv, checks and times them.
Ends all ranks at the first error. Needs neither torch nor the rest of MoRI.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import traceback
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from mpi4py import MPI

from .clock import HostClock, repeated, steady
from .cores import bind
from .peers import check_bytes, split_sizes
from .settings import EpSettings
from .verify import packed
from .workload import make


def main(question: Path, answer: Path) -> None:
    comm = MPI.COMM_WORLD
    bind(comm.rank)
    settings = msgspec.json.decode(question.read_bytes(), type=EpSettings)
    workload = make(settings)
    steps = {}
    for op, returning in (("dispatch", False), ("combine", True)):
        send, want = packed(settings, workload, comm.rank, returning=returning)
        out_sizes, in_sizes = split_sizes(settings, workload, comm.rank, returning=returning)
        target = np.zeros(len(want), dtype=np.uint8)
        # Counted in rows, not bytes: MPI's counts are 32-bit.
        form = settings.combine_format if returning else settings.wire
        unit = MPI.BYTE.Create_contiguous(form.row_bytes(settings.hidden)).Commit()
        source_part, target_part = _part(send, out_sizes, unit), _part(target, in_sizes, unit)

        def exchange(source: Any = source_part, into: Any = target_part) -> None:
            comm.Alltoallv(source, into)

        exchange()
        check_bytes("mpi", op, comm.rank, target, want)
        steps[op] = exchange
    clock = HostClock(comm.Barrier)
    for iteration in range(-settings.warmup, settings.iters):
        if iteration == 0:
            clock.drop()
        for op, exchange in steps.items():
            clock.time(op, exchange)
        clock.time("round_trip", lambda: [exchange() for exchange in steps.values()])
    found = clock.spans()
    found |= steady(clock, {op: repeated(exchange) for op, exchange in steps.items()}, settings.iters)[0]
    spans = comm.gather({op: dataclasses.asdict(value) for op, value in found.items()})
    if spans is not None:
        answer.write_text(json.dumps(spans))


def _part(buffer: Any, sizes: list[int], unit: Any) -> list[Any]:
    counts = [size // unit.Get_size() for size in sizes]
    starts = [sum(counts[:i]) for i in range(len(counts))]
    return [buffer, (counts, starts), unit]


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        MPI.COMM_WORLD.Abort(1)
