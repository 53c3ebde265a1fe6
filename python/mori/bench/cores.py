# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""Which core a CPU rank runs on. With more ranks than cores the scheduler would sooner or later put three on one
core and one on the other, and that would be timed. So ranks are bound, as `mpirun` does: MoRI's, the peers' and those
of the limit alike."""

from __future__ import annotations

import contextlib
import os

__all__ = ["bind"]


def bind(rank: int) -> None:
    """Binds the calling thread, and those that it starts, to one of the process's cores, by rank."""
    with contextlib.suppress(OSError):  # not allowed in some containers: then it is not bound
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[rank % len(cores)]})
