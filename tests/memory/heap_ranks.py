# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What the heap's tests share: a heap for one rank of run_ranks()."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from mori.bootstrap import rendezvous
from mori.heap import Heap
from mori.mesh import Mesh

from mori import _core

MIB = 1 << 20
TIMEOUT_S = 20.0


@contextlib.contextmanager
def cpu_heap(rank: int, world_size: int, uid: bytes, **options: Any) -> Iterator[Heap]:
    options = {"heap_bytes": 2 * MIB, "debug": True, "timeout": TIMEOUT_S} | options
    meeting = rendezvous(uid=uid, rank=rank, world_size=world_size, timeout=TIMEOUT_S)
    with (
        Mesh.connect(meeting, timeout=TIMEOUT_S) as mesh,
        Heap(_core.open_device("cpu"), mesh, **options) as heap,
    ):
        yield heap
