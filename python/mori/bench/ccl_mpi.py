# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""One rank of the MPI peer of `mori bench ccl`, started by mpirun. Needs neither torch nor the rest of MoRI."""

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

from . import ccl_data
from .ccl_settings import CclCase, CclSettings
from .clock import STEADY, HostClock, repeated
from .cores import bind

_DTYPES: dict[str, Any] = {"fp32": np.float32, "int32": np.int32}
_STEADY_BYTES = 64 << 10


def main(question: Path, answer: Path) -> None:
    comm = MPI.COMM_WORLD
    bind(comm.rank)
    settings = msgspec.json.decode(question.read_bytes(), type=CclSettings)
    clock = HostClock(comm.Barrier)
    found: dict[str, Any] = {}
    for index, case in enumerate(settings.cases()):
        call = _call(comm, case, settings)
        for round_ in range(-2, settings.calls(case)):
            if round_ == 0:
                clock.drop()
            clock.time(f"{index} single", call)
        found |= clock.spans()
        clock.drop()
        if case.bytes <= _STEADY_BYTES:
            for _ in range(max(4, settings.calls(case) // 5)):
                clock.time(f"{index} steady", repeated(call))
            found |= {name: spans.divided(STEADY) for name, spans in clock.spans().items()}
            clock.drop()
    spans = comm.gather({name: dataclasses.asdict(value) for name, value in found.items()})
    if spans is not None:
        answer.write_text(json.dumps(spans))


def _call(comm: Any, case: CclCase, settings: CclSettings) -> Any:
    """Checked once."""
    dtype, n, rank = _DTYPES[settings.dtype], comm.size, comm.rank
    elements = case.elements(settings.dtype)
    x = ccl_data.source(case, n, rank, elements, settings.seed).astype(dtype)
    want = ccl_data.wanted(case, n, rank, elements, settings.seed)
    out = np.zeros(elements if want is None else len(want), dtype)
    if case.op == "broadcast":
        out[:] = x
    call: Any = {
        "all_reduce": lambda: comm.Allreduce(x, out),
        "all_gather": lambda: comm.Allgather(x, out),
        "reduce_scatter": lambda: comm.Reduce_scatter_block(x, out),
        "all_to_all": lambda: comm.Alltoall(x, out),
        "reduce": lambda: comm.Reduce(x, out if rank == 0 else None),
        "broadcast": lambda: comm.Bcast(out),
    }[case.op]
    call()
    ccl_data.check("mpi", case, rank, out, want)
    return call


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        MPI.COMM_WORLD.Abort(1)
