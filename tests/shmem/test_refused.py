# SPDX-FileCopyrightText: 2026 The MoRI authors
# SPDX-License-Identifier: MIT
"""What SHMEM refuses inside kernels is reported with its values, writes nothing, and the context goes on."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest
from mori.errors import ConfigError
from mori.shmem.structs import Team, World
from mori.testing import run_ranks

import mori

pytestmark = pytest.mark.timeout(120)
SOURCE = Path(__file__).parent / "kernels/refused.cpp"


class RefusedArgs(ctypes.Structure):
    _fields_ = (("world", World), ("team", Team), ("word", ctypes.c_uint64))


def refusals(rank: int, world_size: int, uid: str, cache: Path) -> list[str]:
    import os

    import torch

    os.environ["MORI_KERNEL_CACHE"] = str(cache)
    said = []
    with mori.init(uid=uid, rank=rank, world_size=world_size, device="cpu", heap_bytes=1 << 20, timeout=30) as ctx:
        word = ctx.empty((1,), torch.int64).fill_(5)
        team = Team(0, 0, 16, 0, 1, world_size, rank)  # 8 bytes for each of two members
        module = mori.compile_kernel(SOURCE, device=ctx)
        for name in ("reduce_without_workspace", "reach_nobody"):
            with pytest.raises(ConfigError) as raised:
                module.kernel(name).launch(RefusedArgs(ctx.world, team, word.data_ptr()))
            said.append(str(raised.value))
            ctx.check()
        ctx.barrier()
        assert word.tolist() == [5]
    return said


def test_refused_calls_write_nothing(tmp_path: Path) -> None:
    workspace = "workspace_bytes=16 of a team is too little for a reduction, which needs 32; nothing was written"
    nobody = "pe=7 of 2 PEs is not one; nothing was written"
    assert run_ranks(refusals, 2, tmp_path / "cache") == [[workspace, nobody]] * 2
