# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""A member that is killed or stopped: the others raise, name it, and go on without it after recover()."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from mori.errors import MoriError
from mori.testing import run_ranks

import mori

pytestmark = pytest.mark.timeout(90)
VICTIM = 1
X = torch.ones(300_000)
CALLS: dict[str, Callable[[Any], Any]] = {
    "one_shot": lambda c: c.all_reduce(X, algorithm="one_shot"),
    "two_shot": lambda c: c.all_reduce(X, algorithm="two_shot"),
    "ll": lambda c: c.all_reduce(X[:5000], algorithm="ll"),
    "all_to_all": lambda c: c.all_to_all(X),
    "barrier": lambda c: c.barrier(),
}


def go_on(rank: int, size: int, uid: bytes, name: str, how: str) -> tuple[str, object, float]:
    timeout = 30 if how == "killed" else 2
    with mori.init(uid=uid, rank=rank, world_size=size, device="cpu", timeout=timeout, heap_bytes=32 << 20) as ctx:
        comm = mori.ccl.Communicator(ctx)
        CALLS[name](comm)
        ctx.mesh.barrier()  # nobody is in that call any more
        if rank == VICTIM:
            os.kill(os.getpid(), signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        start = time.monotonic()
        with pytest.raises(MoriError) as caught:
            CALLS[name](comm)
        seconds = time.monotonic() - start
        with pytest.raises(type(caught.value)):
            comm.barrier()
        with ctx.recover(timeout=20 if how == "killed" else 4) as fresh:
            total = mori.ccl.Communicator(fresh).all_reduce(torch.ones(1000))
            assert total.tolist() == [2.0] * 1000
            fresh.barrier()
        return type(caught.value).__name__, getattr(caught.value, "peer", None), seconds


@pytest.mark.parametrize("name", CALLS)
def test_killed(name: str) -> None:
    outcome = run_ranks(go_on, 3, name, "killed", timeout=60, expendable=[VICTIM])
    for rank in (0, 2):
        error, peer, seconds = outcome[rank]
        assert (error, peer) == ("PeerLost", VICTIM) and seconds < 15  # long before the deadline


@pytest.mark.parametrize("name", ["two_shot", "ll"])
def test_stopped(name: str) -> None:
    outcome = run_ranks(go_on, 3, name, "stopped", timeout=60, expendable=[VICTIM])
    for rank in (0, 2):
        error, peer, seconds = outcome[rank]
        assert (error, peer) == ("TimeoutError", VICTIM) and 1.9 < seconds < 30
