# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What the tests of this folder share: joining a mesh, and catching what a rank is refused with."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from mori.bootstrap import rendezvous
from mori.errors import MoriError
from mori.mesh import Mesh

WORLDS = [pytest.param(n, id=f"{n}ranks") for n in (1, 2, 3, 5, 8)]
MODES = [pytest.param(mode, id=mode) for mode in ("thread", "process")]


def join(rank: int, world_size: int, uid: bytes, timeout: float = 20) -> Mesh:
    with rendezvous(uid=uid, rank=rank, world_size=world_size, timeout=timeout) as found:
        return Mesh.connect(found, timeout=timeout)


def refusal(call: Callable[[], Any]) -> MoriError | None:
    """The error that `call` raises; None if it goes well."""
    try:
        call()
    except MoriError as error:
        return error
    return None


def memfd(text: str) -> int:
    fd = os.memfd_create("test")
    os.write(fd, text.encode())
    return fd


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))
