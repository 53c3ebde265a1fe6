# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Bootstrap from an mpi4py communicator: its rank 0 makes a unique id and broadcasts it, with a deadline."""

from __future__ import annotations

import time
from typing import Any

from ._deadline import Deadline
from .errors import ConfigError, MoriError, TimeoutError
from .uid import UID_BYTES, unique_id

# MPI cannot cancel a nonblocking collective: its buffer must outlive a broadcast that we gave up.
_given_up: list[Any] = []


def rank_and_size(comm: Any) -> tuple[int, int]:
    missing = [name for name in ("Get_rank", "Get_size", "Ibcast") if not hasattr(comm, name)]
    if missing:
        raise ConfigError(f"comm={comm!r} is a {type(comm).__name__}, not an mpi4py communicator (no {missing[0]})")
    return comm.Get_rank(), comm.Get_size()


def broadcast_uid(comm: Any, deadline: Deadline) -> bytes:
    """The id made by rank 0 of `comm`, on every rank."""
    failure: MoriError | None = None
    buffer = bytearray(UID_BYTES)
    if comm.Get_rank() == 0:
        try:
            buffer[:] = unique_id()
        except MoriError as error:  # the zeros are broadcast, so that the others need not wait
            failure = error
    request = comm.Ibcast(buffer, root=0)
    pause_s = 0.0005
    while not request.Test():
        if deadline.expired():
            _given_up.append((request, buffer))
            if failure is not None:
                break
            missing_rank = () if comm.Get_rank() == 0 else (0,)
            raise TimeoutError(
                f"MPI broadcast of the unique id did not end within {deadline.timeout:g} s",
                what="rendezvous mpi",
                missing=missing_rank,
            )
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.02)
    if failure is not None:
        raise failure
    if not any(buffer):
        raise ConfigError("rank 0 of comm could not make a unique id; its own error says why")
    return bytes(buffer)
